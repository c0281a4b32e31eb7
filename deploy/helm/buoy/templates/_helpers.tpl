{{- define "buoy.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "buoy.container" -}}
image: {{ include "buoy.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
# What a container says last is its message in kubectl describe pod.
terminationMessagePolicy: FallbackToLogsOnError
{{- end }}

{{- define "buoy.apiServer" -}}
{{- with .Values.apiServer.host -}}
- {name: KUBERNETES_SERVICE_HOST, value: {{ . | quote }}}
{{- end }}
{{- with .Values.apiServer.port }}
- {name: KUBERNETES_SERVICE_PORT, value: {{ . | quote }}}
{{- end }}
{{- end }}

{{- define "buoy.datastore" -}}
- {name: BUOY_DATASTORE, value: "kubernetes:"}
{{- with include "buoy.apiServer" . }}
{{ . }}
{{- end }}
{{- end }}

{{/* What every container here lacks, whatever it may do beside. */}}
{{- define "buoy.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
seccompProfile: {type: RuntimeDefault}
{{- end }}
