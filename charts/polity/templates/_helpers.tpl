{{/* Labels of every object. */}}
{{- define "polity.labels" -}}
app.kubernetes.io/name: polity
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Labels that select the Pods of one part: (dict "part" "core"). Immutable, so few. */}}
{{- define "polity.selector" -}}
app.kubernetes.io/name: polity
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{/* Full reference of the image. */}}
{{- define "polity.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Base URL of the edge for agents and shims. */}}
{{- define "polity.edgeURL" -}}
{{ .Values.edge.url | default (printf "https://polity-edge.%s.svc" .Release.Namespace) }}
{{- end }}

{{/* What Pod Security level restricted asks of a Pod. */}}
{{- define "polity.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "polity.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Environment of both parts. */}}
{{- define "polity.env" -}}
- name: POLITY_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POLITY_POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POLITY_LOG
  value: {{ .Values.log | quote }}
- name: POLITY_CLUSTER_CIDRS
  value: {{ join "," .Values.clusterCIDRs | quote }}
{{- end }}

{{/* Liveness asks whether the process answers, readiness whether it may take work. */}}
{{- define "polity.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 3
  timeoutSeconds: 3
  failureThreshold: 2
{{- end }}
