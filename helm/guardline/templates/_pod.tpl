{{/* The parts of a pod that workers, Jobs and the model server share. */}}

{{/* Arguments: root, component, scheduling (a worker, the model server, or an empty map). */}}
{{- define "guardline.pod" -}}
serviceAccountName: {{ include "guardline.serviceAccountName" .root | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- with .root.Values.podSecurityContext }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .scheduling }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .topologySpread }}
topologySpreadConstraints:
  {{- range . }}
  - {{ toYaml . | nindent 4 | trim }}
    labelSelector:
      matchLabels:
        {{- include "guardline.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The security of every container: no root, nothing to write to, no capabilities. */}}
{{- define "guardline.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Variables. Arguments: a list of maps with env and secretEnv; later ones win. */}}
{{- define "guardline.env" -}}
{{- $all := dict -}}
{{- range . -}}
{{- range $name, $value := .env | default dict -}}
{{- $_ := set $all $name (dict "value" (include "guardline.text" $value)) -}}
{{- end -}}
{{- range $name, $from := .secretEnv | default dict -}}
{{- $_ := set $all $name (dict "valueFrom" (dict "secretKeyRef" (dict "name" $from.secret "key" $from.key))) -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := $all }}
- name: {{ $name | quote }}
  {{- toYaml $value | nindent 2 }}
{{- end }}
{{- end }}

{{/* A value as the text of a variable. A large whole number would be written with an exponent. */}}
{{- define "guardline.text" -}}
{{- if kindIs "float64" . }}{{ ternary (int64 .) . (eq (floor .) .) }}{{ else }}{{ . }}{{ end -}}
{{- end }}

{{/* Variables of the folders that libraries write to. The only writable folder is /tmp. */}}
{{- define "guardline.folderEnv" -}}
- {name: HOME, value: /tmp}
- {name: USER, value: guardline}
{{- end }}

{{/* Resources, with the GPUs. Argument: a worker or the model server. */}}
{{- define "guardline.resources" -}}
{{- $resources := deepCopy .resources -}}
{{- if gt (int .gpu.count) 0 -}}
{{- $resources = mergeOverwrite $resources (dict "limits" (dict .gpu.resource (int .gpu.count))) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end }}

{{/* Secrets as folders. Arguments: root, worker (optional). */}}
{{- define "guardline.secretMounts" -}}
{{- range $i, $file := concat .root.Values.secretFiles (dig "secretFiles" list (.worker | default dict)) }}
- {name: secret-{{ $i }}, mountPath: {{ $file.mountPath | quote }}, readOnly: true}
{{- end }}
{{- end }}

{{- define "guardline.secretVolumes" -}}
{{- range $i, $file := concat .root.Values.secretFiles (dig "secretFiles" list (.worker | default dict)) }}
- name: secret-{{ $i }}
  secret: {secretName: {{ $file.secret | quote }}, defaultMode: 288}
{{- end }}
{{- end }}

{{/* The config file of a component. Arguments: root, key (in the ConfigMap). */}}
{{- define "guardline.configVolume" -}}
- name: config
  configMap:
    name: {{ include "guardline.fullname" .root | quote }}
    items:
      - {key: {{ .key }}, path: guardline.yaml}
{{- end }}

{{/* Whether there is a volume with the model. */}}
{{- define "guardline.model.has" -}}
{{- with .Values.model }}{{ if or .claim .hostPath .image .download }}true{{ end }}{{ end -}}
{{- end }}

{{- define "guardline.model.mount" -}}
{{- if include "guardline.model.has" . }}
- {name: model, mountPath: {{ .Values.model.mountPath | quote }}, readOnly: true}
{{- end }}
{{- end }}

{{- define "guardline.model.volume" -}}
{{- if include "guardline.model.has" . }}
- name: model
  {{- with .Values.model }}
  {{- if .claim }}
  persistentVolumeClaim: {claimName: {{ .claim | quote }}, readOnly: true}
  {{- else if .hostPath }}
  hostPath: {path: {{ .hostPath | quote }}, type: Directory}
  {{- else if .image }}
  image:
    {{- toYaml .image | nindent 4 }}
  {{- else }}
  emptyDir: {sizeLimit: {{ .download.size | default "10Gi" }}}
  {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The init container that downloads the model. */}}
{{- define "guardline.model.download" -}}
{{- with .Values.model.download }}
initContainers:
  - name: model
    image: {{ include "guardline.image" (dict "image" .image "tag" "latest") }}
    imagePullPolicy: {{ .image.pullPolicy | default "IfNotPresent" }}
    command:
      {{- toYaml .command | nindent 6 }}
    env:
      {{- include "guardline.folderEnv" $ | nindent 6 }}
      {{- include "guardline.env" (list .) | nindent 6 }}
    securityContext:
      {{- include "guardline.containerSecurity" $ | nindent 6 }}
    resources:
      {{- toYaml (.resources | default (dict "requests" (dict "cpu" "100m" "memory" "256Mi") "limits" (dict "memory" "1Gi"))) | nindent 6 }}
    volumeMounts:
      - {name: temporary, mountPath: /tmp}
      - {name: model, mountPath: {{ $.Values.model.mountPath | quote }}}
{{- end }}
{{- end }}

{{/* The volumes at /tmp and, with a GPU, at /dev/shm. Argument: a worker or the model server. */}}
{{- define "guardline.scratchVolumes" -}}
- name: temporary
  emptyDir: {sizeLimit: {{ .temporary }}}
{{- if gt (int .gpu.count) 0 }}
- name: shared-memory
  emptyDir: {medium: Memory, sizeLimit: {{ .gpu.sharedMemory }}}
{{- end }}
{{- end }}

{{- define "guardline.scratchMounts" -}}
- {name: temporary, mountPath: /tmp}
{{- if gt (int .gpu.count) 0 }}
- {name: shared-memory, mountPath: /dev/shm}
{{- end }}
{{- end }}

{{/* How a StatefulSet or Deployment starts and replaces its pods. With GPUs there may be none left for a further pod during an
     upgrade. Arguments: kind, gpu, serviceName. */}}
{{- define "guardline.rollout" -}}
{{- if eq .kind "StatefulSet" -}}
serviceName: {{ .serviceName }}
podManagementPolicy: {{ ternary "OrderedReady" "Parallel" (gt (int .gpu.podsPerCard) 1) }}
updateStrategy:
  type: RollingUpdate
{{- else -}}
strategy:
  type: RollingUpdate
  rollingUpdate:
    {{- if gt (int .gpu.count) 0 }}
    maxSurge: 0
    maxUnavailable: 1
    {{- else }}
    maxSurge: 1
    maxUnavailable: 0
    {{- end }}
{{- end -}}
{{- end }}
