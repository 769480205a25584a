{{/* What the values become: each worker with its defaults, and the settings that the chart itself computes. */}}

{{/* All workers with their defaults, as a map in YAML. */}}
{{- define "guardline.workers" -}}
{{- $all := dict -}}
{{- range $name, $worker := .Values.workers -}}
{{- if $worker -}}
{{- $merged := mergeOverwrite (deepCopy $.Values.workerDefaults) (deepCopy $worker) -}}
{{- /* A budget is replaced: minAvailable and maxUnavailable exclude each other. */ -}}
{{- if hasKey $worker "podDisruptionBudget" -}}{{- $_ := set $merged "podDisruptionBudget" $worker.podDisruptionBudget -}}{{- end -}}
{{- $_ := set $all $name $merged -}}
{{- end -}}
{{- end -}}
{{- toYaml $all -}}
{{- end }}

{{/* What a worker does: the third word of its command, such as moderation or review, or gateway. Argument: worker. */}}
{{- define "guardline.does" -}}
{{- $command := .worker.command | default list -}}
{{- if ge (len $command) 3 -}}{{- if eq (index $command 1) "worker" -}}{{- index $command 2 -}}{{- end -}}
{{- else if eq (len $command) 2 -}}{{- if eq (index $command 1) "gateway" -}}gateway{{- end -}}
{{- end -}}
{{- end }}

{{/* Whether a worker runs the guard of streams. Argument: worker. */}}
{{- define "guardline.streams" -}}
{{- if has (include "guardline.does" .) (list "streams" "gateway") -}}true{{- end -}}
{{- end }}

{{/* Whether a worker that judges runs the guard of texts, which loads guard.model. Arguments: worker, config. */}}
{{- define "guardline.guards" -}}
{{- $does := include "guardline.does" . -}}
{{- if eq $does "gateway" -}}{{- if dig "gateway" "guard_routes" true .config -}}true{{- end -}}
{{- else if ne $does "streams" -}}true{{- end -}}
{{- end }}

{{/* Whether a worker judges, and so needs a model and may have a GPU. Argument: worker. */}}
{{- define "guardline.judges" -}}
{{- if not (has (include "guardline.does" .) (list "aggregates" "review" "actions")) -}}true{{- end -}}
{{- end }}

{{/* config without what is null, such as a section whose settings are all commented out. Argument: root. */}}
{{- define "guardline.settings" -}}
{{- $settings := deepCopy .Values.config -}}
{{- include "guardline.dropNulls" $settings -}}
{{- toYaml $settings -}}
{{- end }}

{{- define "guardline.dropNulls" -}}
{{- range $key, $value := . -}}
{{- if kindIs "invalid" $value -}}{{- $_ := unset $ $key -}}
{{- else if kindIs "map" $value -}}{{- include "guardline.dropNulls" $value -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* guardline.yaml of the Jobs, or of a worker. Arguments: root, worker (optional). */}}
{{- define "guardline.config" -}}
{{- $config := include "guardline.settings" .root | fromYaml -}}
{{- with .worker -}}
{{- $config = mergeOverwrite $config (deepCopy (.config | default dict)) -}}
{{- include "guardline.dropNulls" $config -}}
{{- if include "guardline.judges" (dict "worker" .) -}}
{{- $guard := $config.guard | default dict -}}
{{- if eq ($guard.engine | default "") "vllm" -}}
{{- $vllm := mergeOverwrite (dict "gpu_memory_utilization" (include "guardline.memoryFraction" .gpu | float64)) ($guard.vllm | default dict) -}}
{{- $config = mergeOverwrite $config (dict "guard" (dict "vllm" $vllm)) -}}
{{- else if and (eq ($guard.engine | default "") "openai") $.root.Values.modelServer.enabled (not (dig "openai" "urls" list $guard)) -}}
{{- $urls := include "guardline.modelServer.urls" $.root | fromYamlArray -}}
{{- $config = mergeOverwrite $config (dict "guard" (dict "openai" (dict "urls" $urls))) -}}
{{- end -}}
{{- if and (eq ($guard.engine | default "") "openai") $.root.Values.modelServer.enabled -}}
{{- /* The worker starts together with the server, and waits until it has loaded its model. */ -}}
{{- $within := dict "start_within_s" (int $.root.Values.modelServer.startupSeconds) -}}
{{- $config = mergeOverwrite $config (dict "worker" (mergeOverwrite $within ($config.worker | default dict))) -}}
{{- end -}}
{{- end -}}
{{- if and (include "guardline.streams" (dict "worker" .)) (eq (dig "streams" "engine" "" $config) "vllm") -}}
{{- $vllm := mergeOverwrite (dict "gpu_memory_utilization" (include "guardline.memoryFraction" .gpu | float64)) (dig "streams" "vllm" dict $config) -}}
{{- $config = mergeOverwrite $config (dict "streams" (dict "vllm" $vllm)) -}}
{{- end -}}
{{- $does := include "guardline.does" (dict "worker" .) -}}
{{- if has $does (list "review" "gateway") -}}
{{- $config = mergeOverwrite $config (dict $does (dict "host" "0.0.0.0")) -}}
{{- end -}}
{{- if and .storage (eq (include "guardline.does" (dict "worker" .)) "aggregates") -}}
{{- $config = mergeOverwrite $config (dict "aggregates" (mergeOverwrite (dict "folder" .storage.mountPath) ($config.aggregates | default dict))) -}}
{{- end -}}
{{- $config = mergeOverwrite $config (dict "http" (dict "host" "0.0.0.0" "port" 9464)) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end }}

{{/* The fraction of a card's memory for vLLM. Argument: gpu. Two on a card get 0.45 each. */}}
{{- define "guardline.memoryFraction" -}}
{{- .memoryFraction | default (divf (floor (divf 90.0 .podsPerCard)) 100) -}}
{{- end }}

{{/* The tokens of a prompt. Argument: root. The default is the one of guard.context_tokens. */}}
{{- define "guardline.contextTokens" -}}
{{- dig "guard" "context_tokens" 2048 (include "guardline.settings" . | fromYaml) | int -}}
{{- end }}

{{/* Seconds from SIGTERM to SIGKILL: the drain, the last commit and the end of the engine. Arguments: root, worker. */}}
{{- define "guardline.terminationSeconds" -}}
{{- $config := include "guardline.config" . | fromYaml -}}
{{- .worker.terminationGracePeriodSeconds | default (add 15 (ceil (dig "worker" "grace_s" 25 $config))) | int -}}
{{- end }}

{{/* Seconds from the start of a pod until it must be ready. Arguments: root, worker. */}}
{{- define "guardline.startupSeconds" -}}
{{- $within := dig "worker" "start_within_s" 60 (include "guardline.config" . | fromYaml) | float64 | ceil | int -}}
{{- .worker.startupSeconds | default (max (add 60 $within) (ternary 900 300 (or (gt (int .worker.gpu.count) 0) (eq (include "guardline.does" .) "aggregates")))) | int -}}
{{- end }}

{{/* What decides which topics `guardline topics create` makes, and where. Arguments: root, worker (optional). */}}
{{- define "guardline.topics" -}}
{{- $config := include "guardline.config" . | fromYaml -}}
{{- $own := dict -}}
{{- with .worker -}}
{{- range $name, $value := merge (dict) (.env | default dict) (.secretEnv | default dict) -}}
{{- if regexMatch "(?i)^GUARDLINE_(KAFKA|TOPICS|ACTIONS)__" $name -}}{{- $_ := set $own $name $value -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- dict "kafka" (omit ($config.kafka | default dict) "group") "topics" ($config.topics | default dict) "endpoints" (dig "actions" "endpoints" list $config) "own" $own | toYaml -}}
{{- end }}

{{/* The number of pods. With autoscaling it is the one that runs now: without a number the Kubernetes API would set 1, and all other
     workers would drain when autoscaling is switched on. Where Helm sees no such object, it is minReplicas.
     Arguments: root, worker, name. */}}
{{- define "guardline.replicas" -}}
{{- if .worker.autoscaling.enabled -}}
{{- $live := lookup "apps/v1" .worker.kind .root.Release.Namespace .name -}}
{{- max (dig "spec" "replicas" 0 $live | int) (int .worker.autoscaling.minReplicas) -}}
{{- else -}}
{{- .worker.replicas -}}
{{- end -}}
{{- end }}

{{/* The names of the variables of a worker, in capitals and without _FILE, as a map: GUARDLINE_REDIS__URL_FILE sets the same as
     GUARDLINE_REDIS__URL. Arguments: root, worker. */}}
{{- define "guardline.variables" -}}
{{- $names := dict -}}
{{- range $of := list .root.Values .worker -}}
{{- range $name, $_ := merge (dict) ($of.env | default dict) ($of.secretEnv | default dict) -}}
{{- $_ := set $names (upper $name | trimSuffix "_FILE") $name -}}
{{- end -}}
{{- end -}}
{{- toYaml $names -}}
{{- end }}

{{/* Seconds between two workers that a scale-down removes. Arguments: root, worker. */}}
{{- define "guardline.scaleDownEverySeconds" -}}
{{- .worker.autoscaling.scaleDownEverySeconds | default (add 15 (include "guardline.terminationSeconds" .)) | int -}}
{{- end }}

{{- define "guardline.modelServer.name" -}}
{{- printf "%s-vllm" (include "guardline.fullname" .) -}}
{{- end }}

{{- define "guardline.modelServer.urls" -}}
{{- $name := include "guardline.modelServer.name" . -}}
{{- if eq .Values.modelServer.kind "StatefulSet" -}}
{{- range $i := until (int .Values.modelServer.replicas) }}
- {{ printf "http://%s-%d.%s:8000" $name $i $name }}
{{- end -}}
{{- else }}
- {{ printf "http://%s:8000" $name }}
{{- end -}}
{{- end }}
