{{- define "llm.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "llm.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "llm.labels" -}}
{{ include "llm.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "llm.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "llm.secretName" -}}
{{ .Values.secrets.existingSecret | default (include "llm.name" .) }}
{{- end }}

{{/* The pods that requests go to first: the gateway's own, or those of the whole service. */}}
{{- define "llm.frontComponent" -}}
{{ if eq .Values.mode "split" }}gateway{{ else }}model{{ end }}
{{- end }}

{{/* Every Triton of the set by its own name: the gateway must know them one by one to spread rows and to retry. */}}
{{- define "llm.tritonUrl" -}}
{{- $name := include "llm.name" . -}}
{{- $urls := list -}}
{{- range until (int .Values.replicas) -}}
{{- $urls = append $urls (printf "%s-model-%d.%s-model.%s.svc:8001" $name . $name $.Release.Namespace) -}}
{{- end -}}
{{ join "," $urls }}
{{- end }}

{{- define "llm.commonEnv" -}}
- name: SHUTDOWN_GRACE_S
  value: {{ .Values.shutdownGraceSeconds | quote }}
{{- range $name := list "API_KEY" "ADMIN_TOKEN" }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ include "llm.secretName" $ }}
      key: {{ $name }}
      optional: true
{{- end }}
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "llm.probes" -}}
startupProbe:
  httpGet: {path: /health/ready, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: {{ div (add .Values.probes.startupSeconds 4) 5 }}
readinessProbe: # leaves the Service while the model recovers
  httpGet: {path: /health/ready, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
livenessProbe: # the process only: supervisord and the watchdog repair what is behind it
  httpGet: {path: /health/live, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
lifecycle:
  preStop: # until every proxy has heard that this pod leaves
    exec: {command: ["sleep", "5"]}
{{- end }}

{{- define "llm.podCommon" -}}
serviceAccountName: {{ include "llm.name" . }}
automountServiceAccountToken: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end }}

{{- define "llm.check" -}}
{{- if and (ne .Values.autoscaling.kind "none") (eq .Values.mode "split") }}
{{- fail "autoscaling.kind: with mode=split the gateway knows its Tritons by name; use mode=combined or kind=none" }}
{{- end }}
{{- if and (eq .Values.model.source "pvc") (not .Values.model.pvc.modelId) }}
{{- fail "model.pvc.modelId: name the model that the volume is to hold" }}
{{- end }}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) }}
{{- fail "autoscaling.minReplicas: more than maxReplicas" }}
{{- end }}
{{- end }}
