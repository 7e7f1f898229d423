-- What Argo CD shows of an object of virtfleet: one script for all its kinds.
local status = obj.status or {}
local said = {}
for _, condition in ipairs(status.conditions or {}) do
  said[condition.type] = condition
end
local main = said.Ready or said.Complete

local function health(word, message)
  return {status = word, message = message or ""}
end

if obj.metadata.deletionTimestamp ~= nil then
  return health("Progressing", main and main.message or "It is being deleted.")
end
if obj.kind == "VMAddress" then
  return health("Healthy")
end
if main == nil or status.observedGeneration ~= obj.metadata.generation then
  return health("Progressing", "The operator has not looked at this spec yet.")
end
if said.Stalled ~= nil and said.Stalled.status == "True" then
  return health("Degraded", said.Stalled.message)
end
if main.status == "True" then
  return health("Healthy", main.message)
end
if main.status == "Unknown" then
  return health("Unknown", main.message)
end
if obj.kind == "VirtualMachine" then
  if status.printableStatus == "Stopped" and obj.spec.runStrategy == "Halted" then
    return health("Healthy", main.message)
  end
  if status.printableStatus == "Stopped" or status.printableStatus == "Paused" then
    return health("Suspended", main.message)
  end
  if status.printableStatus == "Unschedulable" then
    return health("Degraded", main.message)
  end
end
if obj.kind == "VMSnapshotSchedule" and main.reason == "Suspended" then
  return health("Suspended", main.message)
end
return health("Progressing", main.message)
