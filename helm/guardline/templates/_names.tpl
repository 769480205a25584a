{{/* Names and labels. A StatefulSet's name plus its revision must fit into a label of 63 characters. */}}

{{- define "guardline.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 31 | trimSuffix "-" -}}
{{- end }}

{{- define "guardline.fullname" -}}
{{- $name := include "guardline.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 31 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 31 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 31 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* The labels by which Services, budgets and policies find the pods of a component. Arguments: root, component. */}}
{{- define "guardline.selector" -}}
app.kubernetes.io/name: {{ include "guardline.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component | quote }}
{{- end }}

{{/* All labels of an object. Arguments: root, component. */}}
{{- define "guardline.labels" -}}
{{ include "guardline.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "guardline.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "guardline.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end }}

{{/* An image with its tag, or with its digest. Arguments: image, tag (where the image names none). */}}
{{- define "guardline.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (.image.tag | default .tag) -}}
{{- end -}}
{{- end }}
