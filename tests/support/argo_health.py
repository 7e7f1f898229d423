"""What Argo CD makes of an object: its Lua script, run by a Lua 5.1 like Argo CD's, without the system's libraries."""

from typing import Any

from lupa.lua51 import LuaRuntime

from virtfleet_dev.paths import checkout

SCRIPT = checkout() / "charts" / "virtfleet" / "files" / "argocd-health" / "virtfleet.lua"


def argo_health(found: dict[str, Any]) -> tuple[str, str]:
    """Return Argo CD's word for an object, and its message."""
    lua = LuaRuntime(unpack_returned_tuples=True)
    for library in ("os", "io", "package", "require", "debug", "python"):
        lua.globals()[library] = None
    run = lua.eval("function(text, obj) return assert(loadstring('local obj = ...\\n' .. text))(obj) end")
    said = run(SCRIPT.read_text(), lua.table_from(found, recursive=True))
    return said["status"], said["message"]
