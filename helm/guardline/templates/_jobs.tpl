{{/* A policy's document: the text of a file as it is, a map as YAML. */}}
{{- define "guardline.policy" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toYaml . }}{{ end -}}
{{- end }}

{{/* A Job that runs one command of Guardline. A Job cannot be changed, so its name ends in a hash of its content: an upgrade that
     changes it makes a new Job and removes the old one. It is not a hook: a hook before the installation would wait for a Kafka of
     the same release, and one after it for workers that wait for their topics.
     Arguments: root, component, command, args, mounts, volumes (each a list), content (what the command reads, for the hash);
     name and worker, if it reads the settings and variables of a worker. */}}
{{- define "guardline.job" -}}
{{- $pod := include "guardline.job.pod" . -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ include "guardline.fullname" .root }}-{{ .component }}-{{ printf "%s%s" $pod .content | sha256sum | trunc 8 }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels:
    {{- include "guardline.labels" . | nindent 4 }}
spec:
  backoffLimit: {{ .root.Values.jobs.backoffLimit }}
  activeDeadlineSeconds: {{ .root.Values.jobs.activeDeadlineSeconds | int64 }}
  # Exit code 2: a wrong setting or policy, which no retry can fix.
  podFailurePolicy:
    rules:
      - action: FailJob
        onExitCodes: {containerName: {{ .component }}, operator: In, values: [2]}
  template:
    {{- $pod | nindent 4 }}
{{- end }}

{{- define "guardline.job.pod" -}}
metadata:
  labels:
    {{- include "guardline.selector" . | nindent 4 }}
spec:
  {{- include "guardline.pod" (dict "root" .root "component" .component "scheduling" dict) | nindent 2 }}
  restartPolicy: Never
  containers:
    - name: {{ .component }}
      image: {{ include "guardline.image" (dict "image" .root.Values.image "tag" .root.Chart.AppVersion) }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      command:
        {{- toYaml .command | nindent 8 }}
      {{- with .args }}
      args:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      env:
        - {name: GUARDLINE_CONFIG, value: /etc/guardline/config/guardline.yaml}
        {{- include "guardline.folderEnv" .root | nindent 8 }}
        {{- include "guardline.env" (list .root.Values (.worker | default dict)) | nindent 8 }}
      resources:
        {{- toYaml .root.Values.jobs.resources | nindent 8 }}
      securityContext:
        {{- include "guardline.containerSecurity" .root | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/guardline/config, readOnly: true}
        - {name: temporary, mountPath: /tmp}
        {{- include "guardline.secretMounts" . | nindent 8 }}
        {{- with .mounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    {{- include "guardline.configVolume" (dict "root" .root "key" (printf "%s.yaml" (.name | default "guardline"))) | nindent 4 }}
    - name: temporary
      emptyDir: {sizeLimit: 1Gi}
    {{- include "guardline.secretVolumes" . | nindent 4 }}
    {{- with .volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
