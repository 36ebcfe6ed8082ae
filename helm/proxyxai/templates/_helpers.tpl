{{- define "proxyxai.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "proxyxai.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Labels that select; takes (list context component). */}}
{{- define "proxyxai.selector" -}}
{{- $context := index . 0 -}}
app.kubernetes.io/name: {{ include "proxyxai.name" $context }}
app.kubernetes.io/instance: {{ $context.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "proxyxai.labels" -}}
{{- $context := index . 0 -}}
{{ include "proxyxai.selector" . }}
app.kubernetes.io/version: {{ $context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $context.Chart.Name $context.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "proxyxai.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
{{- end }}

{{- define "proxyxai.secret" -}}
{{- default (printf "%s-secrets" (include "proxyxai.fullname" .)) .Values.secrets.existing }}
{{- end }}

{{- define "proxyxai.tlsSecret" -}}
{{- if eq .Values.tls.mode "secret" -}}
{{ required "tls.secretName names the secret of tls.mode: secret" .Values.tls.secretName }}
{{- else -}}
{{ include "proxyxai.fullname" . }}-tls
{{- end }}
{{- end }}

{{- define "proxyxai.etcdEndpoints" -}}
{{- if .Values.etcd.enabled -}}
{{- $name := include "proxyxai.fullname" . -}}
{{- $all := list -}}
{{- range $at := until (int .Values.etcd.replicas) -}}
{{- $all = append $all (printf "http://%s-etcd-%d.%s-etcd:2379" $name $at $name) -}}
{{- end -}}
{{ join "," $all }}
{{- else -}}
{{- if not .Values.etcd.endpoints }}{{ fail "etcd.endpoints says where etcd is when etcd.enabled is false" }}{{ end -}}
{{ join "," .Values.etcd.endpoints }}
{{- end }}
{{- end }}

{{/* Settings of a program as environment variables. */}}
{{- define "proxyxai.settings" -}}
{{- range $name, $value := . }}
- name: XAI_{{ upper $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{/* What traces need, of both programs: variables, a mount, a volume. */}}
{{- define "proxyxai.traceEnvironment" -}}
{{- with .Values.traces }}
{{- if .endpoint }}
- {name: XAI_TRACE_ENDPOINT, value: {{ .endpoint | quote }}}
- {name: XAI_TRACE_RATIO, value: {{ .ratio | toString | quote }}}
{{- if .headersSecret }}
- {name: XAI_TRACE_HEADERS_FILE, value: /etc/proxyxai/traces/headers}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "proxyxai.traceMount" -}}
{{- if and .Values.traces.endpoint .Values.traces.headersSecret }}
- {name: traces, mountPath: /etc/proxyxai/traces, readOnly: true}
{{- end }}
{{- end }}

{{- define "proxyxai.traceVolume" -}}
{{- if and .Values.traces.endpoint .Values.traces.headersSecret }}
- name: traces
  secret: {secretName: {{ .Values.traces.headersSecret }}, defaultMode: 0440, items: [{key: headers, path: headers}]}
{{- end }}
{{- end }}

{{/* The way out to the collector. */}}
{{- define "proxyxai.traceEgress" -}}
{{- with .Values.traces.endpoint }}
- ports: [{port: {{ splitList ":" . | last }}}]
{{- end }}
{{- end }}

{{- define "proxyxai.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "proxyxai.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "proxyxai.probes" -}}
startupProbe:
  httpGet: {path: /live, port: ops}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /live, port: ops}
  periodSeconds: 10
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /ready, port: ops}
  periodSeconds: 2
  failureThreshold: 2
{{- end }}
