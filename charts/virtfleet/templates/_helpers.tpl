{{- /*
Names are fixed, since the operator writes to objects of these names, and a cluster has one fleet.
*/}}
{{- define "virtfleet.labels" -}}
app.kubernetes.io/part-of: virtfleet
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* What selects the pods of a part: never changes, since a Deployment's selector cannot. */}}
{{- define "virtfleet.selector" -}}
app.kubernetes.io/name: virtfleet-{{ . }}
{{- end }}

{{- /* Labels of a part's pods: nothing that a new version of the chart would start them again for. */}}
{{- define "virtfleet.podLabels" -}}
app.kubernetes.io/part-of: virtfleet
{{ include "virtfleet.selector" . }}
{{- end }}

{{- /* The image of a part: list $ "operator". */}}
{{- define "virtfleet.image" -}}
{{- $root := index . 0 }}
{{- $part := index . 1 }}
{{- $registry := $root.Values.image.registry | trimSuffix "/" }}
{{- $image := index $root.Values.image $part }}
{{- $name := ternary $image.repository (printf "%s/%s" $registry $image.repository) (empty $registry) }}
{{- if $image.digest }}
{{- printf "%s@%s" $name $image.digest }}
{{- else }}
{{- printf "%s:%s" $name ($root.Values.image.tag | default $root.Chart.AppVersion) }}
{{- end }}
{{- end }}

{{- define "virtfleet.imagePullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* Where pods run, and how important they are: from a section of the values. */}}
{{- define "virtfleet.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "virtfleet.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "virtfleet.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* DNS name of a Service: list $ "virtfleet-operator". */}}
{{- define "virtfleet.serviceName" -}}
{{- printf "%s.%s.svc" (index . 1) (index . 0).Release.Namespace }}
{{- end }}

{{- /* Whether something that depends on another API is wanted: list $ "auto" "monitoring.coreos.com/v1/PodMonitor". */}}
{{- define "virtfleet.wanted" -}}
{{- $wanted := index . 1 | toString }}
{{- if or (eq $wanted "true") (and (eq $wanted "auto") ((index . 0).Capabilities.APIVersions.Has (index . 2))) }}yes{{ end }}
{{- end }}

{{- /* OVN's databases as OVN names them: list $ "northbound" 6641. */}}
{{- define "virtfleet.ovnRemote" -}}
{{- $root := index . 0 }}
{{- if eq $root.Values.ovn.mode "Bundled" }}
{{- $address := $root.Values.ovn.central.service.clusterIP }}
{{- printf "ssl:%s:%v" (ternary (printf "[%s]" $address) $address (contains ":" $address)) (index . 2) }}
{{- else }}
{{- index $root.Values.ovn.external (index . 1) }}
{{- end }}
{{- end }}

{{- /* What the schema cannot say. */}}
{{- define "virtfleet.check" -}}
{{- $ovn := .Values.ovn }}
{{- if and (eq $ovn.mode "Bundled") (empty $ovn.central.service.clusterIP) }}
{{- fail "ovn.central.service.clusterIP is empty: OVN takes addresses, no DNS names. Choose a free address of the cluster's range of Services, such as 10.96.0.41." }}
{{- end }}
{{- if and (eq $ovn.mode "External") (or (empty $ovn.external.northbound) (empty $ovn.external.southbound)) }}
{{- fail "ovn.external.northbound and ovn.external.southbound say where your databases are, such as ssl:192.0.2.10:6641 and ssl:192.0.2.10:6642." }}
{{- end }}
{{- end }}
