{{/* Refuses values that contradict each other, or that would put a secret into a manifest, with one sentence each. A sentence names
     the value, says what is wrong and what to do. It never shows a value that may be a secret. */}}

{{- define "guardline.checks" -}}
{{- $found := dict "sentences" list -}}
{{- $known := .Files.Get "files/settings.json" | fromJsonArray -}}
{{- include "guardline.checks.required" (dict "root" . "found" $found) -}}
{{- include "guardline.checks.model" (dict "root" . "found" $found) -}}
{{- include "guardline.checks.secretsIn" (dict "found" $found "at" "config" "value" .Values.config) -}}
{{- include "guardline.checks.config" (dict "found" $found "known" $known "at" "config" "config" .Values.config) -}}
{{- include "guardline.checks.env" (dict "found" $found "known" $known "at" "" "of" .Values) -}}
{{- include "guardline.checks.env" (dict "found" $found "known" $known "at" "modelServer." "of" .Values.modelServer) -}}
{{- include "guardline.checks.env" (dict "found" $found "known" $known "at" "model.download." "of" .Values.model.download) -}}
{{- range $name, $worker := include "guardline.workers" . | fromYaml -}}
{{- $at := printf "workers.%s" $name -}}
{{- include "guardline.checks.secretsIn" (dict "found" $found "at" (printf "%s.config" $at) "value" ($worker.config | default dict)) -}}
{{- include "guardline.checks.config" (dict "found" $found "known" $known "at" (printf "%s.config" $at) "config" ($worker.config | default dict)) -}}
{{- include "guardline.checks.env" (dict "found" $found "known" $known "at" (printf "%s." $at) "of" $worker) -}}
{{- include "guardline.checks.worker" (dict "root" $ "found" $found "at" $at "name" $name "worker" $worker) -}}
{{- include "guardline.checks.autoscaling" (dict "root" $ "found" $found "at" $at "worker" $worker) -}}
{{- end -}}
{{- if $found.sentences -}}
{{- fail (printf "\n%s\n" (join "\n" $found.sentences)) -}}
{{- end -}}
{{- end }}

{{/* Adds a sentence. Arguments: found, say. */}}
{{- define "guardline.refuse" -}}
{{- $_ := set .found "sentences" (append .found.sentences (printf "- %s" .say)) -}}
{{- end }}

{{- define "guardline.checks.required" -}}
{{- $values := .root.Values -}}
{{- $variables := merge (dict) ($values.env | default dict) ($values.secretEnv | default dict) -}}
{{- $settings := include "guardline.settings" .root | fromYaml -}}
{{- if not $values.image.repository -}}
{{- include "guardline.refuse" (dict "found" .found "say" "image.repository: is not set; no image is published, so build one from infra/docker and name it here") -}}
{{- end -}}
{{- if not (or (dig "kafka" "bootstrap_servers" "" $settings) $variables.GUARDLINE_KAFKA__BOOTSTRAP_SERVERS $variables.GUARDLINE_KAFKA__BOOTSTRAP_SERVERS_FILE) -}}
{{- include "guardline.refuse" (dict "found" .found "say" "config.kafka.bootstrap_servers: is not set; name the brokers, as in kafka-bootstrap:9092") -}}
{{- end -}}
{{- if not (or (dig "redis" "url" "" $settings) $variables.GUARDLINE_REDIS__URL $variables.GUARDLINE_REDIS__URL_FILE) -}}
{{- include "guardline.refuse" (dict "found" .found "say" "config.redis.url: is not set; name your Redis or Valkey, as in redis://valkey:6379/0, or set secretEnv.GUARDLINE_REDIS__URL if the URL holds a password") -}}
{{- end -}}
{{- end }}

{{/* Where a secret stands in a tree of values. Arguments: found, at (the path), value. */}}
{{- define "guardline.checks.secretsIn" -}}
{{- $ := . -}}
{{- if kindIs "map" .value -}}
{{- range $key, $value := .value -}}
{{- $at := printf "%s.%s" $.at $key -}}
{{- if and (hasSuffix ".property_files" $.at) (hasPrefix "/" (toString $value)) -}}
{{- /* The path of a file that holds a property. */ -}}
{{- else if and (include "guardline.isSecretName" $key) $value (not (kindIs "map" $value)) -}}
{{- include "guardline.refuse" (dict "found" $.found "say" (printf "%s: holds a secret, which would be in a ConfigMap for everybody to read; put it into a Secret and name it in secretEnv.%s" $at (include "guardline.variable" $at))) -}}
{{- else -}}
{{- include "guardline.checks.secretsIn" (dict "found" $.found "at" $at "value" $value) -}}
{{- end -}}
{{- end -}}
{{- else if kindIs "slice" .value -}}
{{- range $i, $value := .value -}}
{{- include "guardline.checks.secretsIn" (dict "found" $.found "at" $.at "value" $value) -}}
{{- end -}}
{{- else if include "guardline.hasPassword" (.value | toString) -}}
{{- include "guardline.refuse" (dict "found" .found "say" (printf "%s: is a URL with a password, which would be in a ConfigMap for everybody to read; put the URL into a Secret and name it in secretEnv.%s" .at (include "guardline.variable" .at))) -}}
{{- end -}}
{{- end }}

{{/* The environment variable of a setting: config.redis.url is GUARDLINE_REDIS__URL. A property of Kafka is a part of a map. */}}
{{- define "guardline.variable" -}}
{{- $path := regexReplaceAll "^.*?config\\." . "" -}}
{{- if regexMatch "^kafka[.]propert(ies|y_files)[.]" $path -}}
GUARDLINE_KAFKA__PROPERTIES as JSON
{{- else -}}
GUARDLINE_{{ $path | replace "." "__" | upper }}
{{- end -}}
{{- end }}

{{- define "guardline.isSecretName" -}}
{{- if regexMatch "(?i)((^|[._-])(password|passwd|passphrase|secret|api_?key|access_?key|token)|user[._]info|key[.]pem|(^|[._])ssl_key)$" . -}}true{{- end -}}
{{- end }}

{{- define "guardline.hasPassword" -}}
{{- if or (regexMatch "://[^/@?#]*:[^@]*@" .) (regexMatch "(?i)://.*[?&][a-z_]*(password|passphrase|token|secret)=" .) -}}true{{- end -}}
{{- end }}

{{/* Settings that do not exist. Below a setting that is a map, any name is possible. Arguments: found, at (the path of value),
     value, below (the settings above, such as "kafka."), known (the names of all settings). */}}
{{- define "guardline.checks.names" -}}
{{- $ := . -}}
{{- range $key, $value := .value -}}
{{- $name := printf "%s%s" $.below $key -}}
{{- if not (has $name $.known) -}}
{{- $further := printf "%s." $name -}}
{{- $inside := list -}}
{{- $siblings := list -}}
{{- range $.known -}}
{{- if hasPrefix $further . -}}{{- $inside = append $inside . -}}{{- end -}}
{{- if hasPrefix $.below . -}}{{- $siblings = append $siblings (trimPrefix $.below . | splitList "." | first) -}}{{- end -}}
{{- end -}}
{{- if not $inside -}}
{{- include "guardline.refuse" (dict "found" $.found "say" (printf "%s.%s: there is no such setting (one of: %s)" $.at $key (join ", " (uniq $siblings)))) -}}
{{- else if not (or (kindIs "map" $value) (kindIs "invalid" $value)) -}}
{{- include "guardline.refuse" (dict "found" $.found "say" (printf "%s.%s: is a section, and has to hold settings" $.at $key)) -}}
{{- else -}}
{{- include "guardline.checks.names" (dict "found" $.found "at" (printf "%s.%s" $.at $key) "value" $value "below" $further "known" $.known) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* What the chart sets itself. Arguments: found, at, config, known. */}}
{{- define "guardline.checks.config" -}}
{{- $ := . -}}
{{- include "guardline.checks.names" (dict "found" .found "at" .at "value" .config "below" "" "known" .known) -}}
{{- range $path, $instead := dict "worker.id" "it is the name of the pod" "http.host" "the probes need all interfaces" "http.port" "the probes and the Service use port 9464" "review.host" "the Service needs all interfaces" "gateway.host" "the Service needs all interfaces" "streams.vllm.gpu_memory_utilization" "set gpu.memoryFraction of the worker" "guard.vllm.gpu_memory_utilization" "set gpu.memoryFraction of the worker" -}}
{{- $parts := splitList "." $path -}}
{{- $value := $.config -}}
{{- range $parts -}}
{{- $value = ternary (get (ternary $value dict (kindIs "map" $value)) .) "" (kindIs "map" $value) -}}
{{- end -}}
{{- if $value -}}
{{- include "guardline.refuse" (dict "found" $.found "say" (printf "%s.%s: the chart sets it: %s" $.at $path $instead)) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Variables with a secret value, and variables that the chart or its checks would not see. Arguments: found, at, of,
     known. */}}
{{- define "guardline.checks.env" -}}
{{- $ := . -}}
{{- $env := .of.env | default dict -}}
{{- range $name, $value := $env -}}
{{- $upper := upper $name -}}
{{- if or (include "guardline.isSecretName" $name) (include "guardline.hasPassword" ($value | toString)) (has $upper (list "GUARDLINE_KAFKA__PROPERTIES" "GUARDLINE_ACTIONS__ENDPOINTS")) (regexMatch "^OTEL_.*HEADERS$" $upper) -}}
{{- include "guardline.refuse" (dict "found" $.found "say" (printf "%senv.%s: may hold a secret, which would be in the manifest for everybody to read; put it into a Secret and name it in %ssecretEnv.%s" $.at $name $.at $name)) -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := merge (dict) $env (.of.secretEnv | default dict) -}}
{{- $upper := upper $name | trimSuffix "_FILE" -}}
{{- if has $upper (list "GUARDLINE_CONFIG" "GUARDLINE_WORKER__ID" "GUARDLINE_HTTP__HOST" "GUARDLINE_HTTP__PORT" "GUARDLINE_REVIEW__HOST") -}}
{{- include "guardline.refuse" (dict "found" $.found "say" (printf "%senv.%s: the chart sets it" $.at $name)) -}}
{{- else if has $upper (list "GUARDLINE_WORKER__GRACE_S" "GUARDLINE_WORKER__START_WITHIN_S" "GUARDLINE_GUARD__ENGINE" "GUARDLINE_GUARD__CONTEXT_TOKENS" "GUARDLINE_GUARD__MODEL" "GUARDLINE_GUARD__VLLM" "GUARDLINE_REVIEW__PORT" "GUARDLINE_AGGREGATES__FOLDER") -}}
{{- include "guardline.refuse" (dict "found" $.found "say" (printf "%senv.%s: the chart reads this setting; set it in config" $.at $name)) -}}
{{- else if hasPrefix "GUARDLINE_" $upper -}}
{{- $setting := trimPrefix "GUARDLINE_" $upper | lower | replace "__" "." -}}
{{- $is := dict "known" false -}}
{{- range $.known -}}
{{- if or (eq . $setting) (hasPrefix (printf "%s." .) $setting) (hasPrefix (printf "%s." $setting) .) -}}{{- $_ := set $is "known" true -}}{{- end -}}
{{- end -}}
{{- if not $is.known -}}
{{- include "guardline.refuse" (dict "found" $.found "say" (printf "%senv.%s: there is no such setting; a setting is GUARDLINE_SECTION__NAME, with two underscores" $.at $name)) -}}
{{- end -}}
{{- end -}}
{{- if and (hasKey $env $name) (hasKey ($.of.secretEnv | default dict) $name) -}}
{{- include "guardline.refuse" (dict "found" $.found "say" (printf "%senv.%s: is in %ssecretEnv too; leave one of them out" $.at $name $.at)) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The volume of the model, and the model server. */}}
{{- define "guardline.checks.model" -}}
{{- $found := .found -}}
{{- $model := .root.Values.model -}}
{{- $server := .root.Values.modelServer -}}
{{- $guard := dig "guard" dict (include "guardline.settings" .root | fromYaml) -}}
{{- $sources := list -}}
{{- range list "claim" "hostPath" "image" "download" -}}
{{- if get $model . -}}{{- $sources = append $sources (printf "model.%s" .) -}}{{- end -}}
{{- end -}}
{{- if gt (len $sources) 1 -}}
{{- include "guardline.refuse" (dict "found" $found "say" (printf "model: %s are set; the checkpoint has one source, so keep one of them" (join " and " $sources))) -}}
{{- end -}}
{{- if and (not $sources) (hasPrefix (printf "%s/" (trimSuffix "/" $model.mountPath)) (printf "%s/" ($guard.model | default ""))) -}}
{{- include "guardline.refuse" (dict "found" $found "say" (printf "config.guard.model: is below model.mountPath (%s), and no volume is mounted there; set one of model.claim, model.hostPath, model.image and model.download" $model.mountPath)) -}}
{{- end -}}
{{- if and $model.image (semverCompare "<1.31.0-0" .root.Capabilities.KubeVersion.Version) -}}
{{- include "guardline.refuse" (dict "found" $found "say" (printf "model.image: Kubernetes %s has no image volumes; use 1.35 or newer, or another source" .root.Capabilities.KubeVersion.Version)) -}}
{{- end -}}
{{- if $server.enabled -}}
{{- if not $guard.model -}}
{{- include "guardline.refuse" (dict "found" $found "say" "config.guard.model: is not set; the model server and the workers need the same checkpoint") -}}
{{- end -}}
{{- if ne ($guard.engine | default "") "openai" -}}
{{- include "guardline.refuse" (dict "found" $found "say" "modelServer.enabled: no worker would use the server; set config.guard.engine to openai") -}}
{{- end -}}
{{- range $server.args -}}
{{- if regexMatch "^--(api[-_]key|max[-_]model[-_]len|gpu[-_]memory[-_]utilization|port|host|model|served[-_]model[-_]name)([= ]|$)" . -}}
{{- $name := regexFind "^--[a-z_-]+" . -}}
{{- $instead := get (dict "--api-key" "modelServer.apiKey, which names a Secret" "--max-model-len" "config.guard.context_tokens" "--gpu-memory-utilization" "modelServer.gpu.memoryFraction" "--model" "config.guard.model" "--served-model-name" "config.guard.openai.model") ($name | replace "_" "-") -}}
{{- include "guardline.refuse" (dict "found" $found "say" (printf "modelServer.args: %s is set by the chart%s" $name (ternary (printf "; set %s" $instead) "" (ne $instead "")))) -}}
{{- end -}}
{{- end -}}
{{- include "guardline.checks.gpu" (dict "found" $found "at" "modelServer" "of" $server "usesGpu" true) -}}
{{- end -}}
{{- end }}

{{/* Arguments: found, at, of (a worker or the model server), usesGpu. */}}
{{- define "guardline.checks.gpu" -}}
{{- $gpu := .of.gpu -}}
{{- if and .usesGpu (eq (int $gpu.count) 0) -}}
{{- include "guardline.refuse" (dict "found" .found "say" (printf "%s.gpu.count: is 0, and vLLM needs a GPU; set it to 1" .at)) -}}
{{- end -}}
{{- if and (gt (int $gpu.count) 1) (gt (int $gpu.podsPerCard) 1) -}}
{{- include "guardline.refuse" (dict "found" .found "say" (printf "%s.gpu.podsPerCard: a pod with several GPUs cannot share them; set count or podsPerCard to 1" .at)) -}}
{{- end -}}
{{- $fraction := include "guardline.memoryFraction" $gpu | float64 -}}
{{- if gt (mulf $fraction (float64 $gpu.podsPerCard)) 0.98 -}}
{{- include "guardline.refuse" (dict "found" .found "say" (printf "%s.gpu.memoryFraction: %v for each of %d pods is more than a card has; use at most %v" .at $fraction (int $gpu.podsPerCard) (divf (floor (divf 98.0 $gpu.podsPerCard)) 100))) -}}
{{- end -}}
{{- range $where, $amounts := .of.resources -}}
{{- range $name, $amount := $amounts -}}
{{- if contains "/" $name -}}
{{- include "guardline.refuse" (dict "found" $.found "say" (printf "%s.resources.%s.%s: is a device; set %s.gpu.count and %s.gpu.resource" $.at $where $name $.at $.at)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Arguments: root, found, at, name, worker. */}}
{{- define "guardline.checks.worker" -}}
{{- $worker := .worker -}}
{{- $config := include "guardline.config" . | fromYaml -}}
{{- $guard := $config.guard | default dict -}}
{{- if has .name (list "vllm" "topics" "policies" "config" "monitoring" "account" "jobs") -}}
{{- include "guardline.refuse" (dict "found" .found "say" (printf "%s: the name belongs to another part of the chart; choose another one" .at)) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$" .name) -}}
{{- include "guardline.refuse" (dict "found" .found "say" (printf "%s: a name has at most 20 small letters, digits and hyphens, and begins with a letter" .at)) -}}
{{- end -}}
{{- $grace := float64 (dig "worker" "grace_s" 25 $config) -}}
{{- $seconds := include "guardline.terminationSeconds" . | float64 -}}
{{- if lt $seconds (addf $grace 5) -}}
{{- include "guardline.refuse" (dict "found" .found "say" (printf "%s.terminationGracePeriodSeconds: %v is too short for worker.grace_s (%v): Kubernetes would kill the worker before its last commit; use at least %v" .at $seconds $grace (addf $grace 5))) -}}
{{- end -}}
{{- $within := float64 (dig "worker" "start_within_s" 60 $config) -}}
{{- $startup := include "guardline.startupSeconds" . | float64 -}}
{{- if le $startup $within -}}
{{- include "guardline.refuse" (dict "found" .found "say" (printf "%s.startupSeconds: %v is not above worker.start_within_s (%v): Kubernetes would kill a worker that still waits for Kafka" .at $startup $within)) -}}
{{- end -}}
{{- if include "guardline.judges" . -}}
{{- $does := include "guardline.does" . -}}
{{- $engines := dict -}}
{{- if include "guardline.guards" (dict "worker" $worker "config" $config) -}}{{- $_ := set $engines "guard.engine" ($guard.engine | default "ctranslate2") -}}{{- end -}}
{{- if include "guardline.streams" . -}}{{- $_ := set $engines "streams.engine" (dig "streams" "engine" "onnxruntime" $config) -}}{{- end -}}
{{- include "guardline.checks.gpu" (dict "found" .found "at" .at "of" $worker "usesGpu" (has "vllm" (values $engines))) -}}
{{- if and (gt (int $worker.gpu.count) 0) (not (has "vllm" (values $engines))) -}}
{{- include "guardline.refuse" (dict "found" .found "say" (printf "%s.gpu.count: the engine %s uses no GPU; set %s to vllm in config, or count to 0" .at (first (values $engines | sortAlpha)) (join " or " (keys $engines | sortAlpha)))) -}}
{{- end -}}
{{- if and (eq (get $engines "guard.engine") "vllm") (eq (get $engines "streams.engine") "vllm") -}}
{{- include "guardline.refuse" (dict "found" .found "say" (printf "%s: guard.engine and streams.engine are both vllm, and each would take the memory of the card; set guard.engine to openai in the config of this worker" .at)) -}}
{{- end -}}
{{- if and (include "guardline.streams" .) $worker.autoscaling.enabled -}}
{{- include "guardline.refuse" (dict "found" .found "say" (printf "%s.autoscaling.enabled: its triggers are those of the moderation worker; set replicas of the worker %s" .at $does)) -}}
{{- end -}}
{{- if eq $does "gateway" -}}
{{- include "guardline.checks.port" (dict "found" .found "at" .at "worker" $worker "of" "gateway" "port" (int (dig "gateway" "port" 9480 $config))) -}}
{{- end -}}
{{- if and (eq (get $engines "guard.engine") "openai") (not (dig "openai" "urls" list $guard)) -}}
{{- include "guardline.refuse" (dict "found" .found "say" (printf "%s: the engine is openai, and there is no server; set modelServer.enabled, or guard.openai.urls in config" .at)) -}}
{{- end -}}
{{- if and (hasKey $engines "guard.engine") (not $worker.mountModel) (hasPrefix (printf "%s/" (trimSuffix "/" .root.Values.model.mountPath)) (printf "%s/" ($guard.model | default ""))) -}}
{{- include "guardline.refuse" (dict "found" .found "say" (printf "%s.mountModel: is false, and guard.model is below model.mountPath" .at)) -}}
{{- end -}}
{{- else -}}
{{- include "guardline.checks.other" . -}}
{{- end -}}
{{- if and $worker.storage (eq $worker.kind "Deployment") -}}
{{- include "guardline.refuse" (dict "found" .found "say" (printf "%s.storage: the pods of a Deployment have no volumes of their own; use StatefulSet, or leave storage out" .at)) -}}
{{- end -}}
{{- if and $worker.egress (not .root.Values.networkPolicy.egress) -}}
{{- include "guardline.refuse" (dict "found" .found "say" (printf "%s.egress: has no effect while networkPolicy.egress is empty, because then every connection is allowed; set networkPolicy.egress to what all workers need" .at)) -}}
{{- end -}}
{{- if and (eq $worker.kind "Deployment") (gt (int $worker.gpu.podsPerCard) 1) -}}
{{- include "guardline.refuse" (dict "found" .found "say" (printf "%s.kind: the pods of a Deployment start together, and vLLM measures a card's free memory when it starts; use StatefulSet where pods share a card" .at)) -}}
{{- end -}}
{{- if not (and (dig "requests" "cpu" "" $worker.resources) (dig "limits" "memory" "" $worker.resources)) -}}
{{- include "guardline.refuse" (dict "found" .found "say" (printf "%s.resources: requests.cpu and limits.memory are required: without them one worker can take a whole node" .at)) -}}
{{- end -}}
{{- $ports := list "http" -}}
{{- range $worker.ports -}}
{{- if or (has .name $ports) (eq (int .port) 9464) -}}
{{- include "guardline.refuse" (dict "found" $.found "say" (printf "%s.ports: %s is taken; http, 9464, is the port of the probes and metrics" $.at .name)) -}}
{{- end -}}
{{- $ports = append $ports .name -}}
{{- end -}}
{{- with $worker.ingress -}}
{{- if not (has .port (rest $ports)) -}}
{{- include "guardline.refuse" (dict "found" $.found "say" (printf "%s.ingress.port: there is no port %s in ports" $.at .port)) -}}
{{- end -}}
{{- if not (or .tlsSecret .tlsAtProxy) -}}
{{- include "guardline.refuse" (dict "found" $.found "say" (printf "%s.ingress.tlsSecret: is not set, and tokens and texts would not be encrypted; name a Secret with the certificate, or set tlsAtProxy if a proxy in front of the Ingress has it" $.at)) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* A worker that serves an API needs the port in its Service. Arguments: found, at, worker, of (the section), port. */}}
{{- define "guardline.checks.port" -}}
{{- $numbers := list -}}
{{- range .worker.ports -}}{{- $numbers = append $numbers (int .port) -}}{{- end -}}
{{- if not (has .port $numbers) -}}
{{- include "guardline.refuse" (dict "found" .found "say" (printf "%s.ports: none is %s.port (%d), so no Service would lead to the API; add {name: api, port: %d}" .at .of .port .port)) -}}
{{- end -}}
{{- end }}

{{/* A worker that does not judge. Arguments: root, found, at, worker. */}}
{{- define "guardline.checks.other" -}}
{{- $ := . -}}
{{- $worker := .worker -}}
{{- $does := include "guardline.does" . -}}
{{- $config := include "guardline.config" . | fromYaml -}}
{{- if gt (int $worker.gpu.count) 0 -}}
{{- include "guardline.refuse" (dict "found" .found "say" (printf "%s.gpu.count: the worker %s uses no GPU; set it to 0" .at $does)) -}}
{{- end -}}
{{- if $worker.autoscaling.enabled -}}
{{- include "guardline.refuse" (dict "found" .found "say" (printf "%s.autoscaling.enabled: its triggers are those of the moderation worker; set replicas of the worker %s" .at $does)) -}}
{{- end -}}
{{- $folder := dig "aggregates" "folder" "" $config | default "" -}}
{{- if and (eq $does "aggregates") $folder -}}
{{- $writable := list "/tmp/" -}}
{{- with $worker.storage -}}{{- $writable = append $writable (printf "%s/" (trimSuffix "/" .mountPath)) -}}{{- end -}}
{{- range $worker.extraVolumeMounts -}}{{- $writable = append $writable (printf "%s/" (trimSuffix "/" .mountPath)) -}}{{- end -}}
{{- $is := dict "below" false -}}
{{- range $writable -}}{{- if hasPrefix . (printf "%s/" $folder) -}}{{- $_ := set $is "below" true -}}{{- end -}}{{- end -}}
{{- if not $is.below -}}
{{- include "guardline.refuse" (dict "found" .found "say" (printf "%s.storage: is not set or is mounted elsewhere, and the worker cannot write to aggregates.folder (%s); set storage, or leave aggregates.folder out" .at $folder)) -}}
{{- end -}}
{{- end -}}
{{- if eq $does "review" -}}
{{- if gt (int $worker.replicas) 1 -}}
{{- include "guardline.refuse" (dict "found" .found "say" (printf "%s.replicas: is %d, and one review worker works at a time: each further one would only wait, and not be ready; use 1" .at (int $worker.replicas))) -}}
{{- end -}}
{{- if eq $worker.kind "Deployment" -}}
{{- include "guardline.refuse" (dict "found" .found "say" (printf "%s.kind: an upgrade of a Deployment keeps the old pod until the new one is ready, and a review worker is ready only after the old one has ended; use StatefulSet" .at)) -}}
{{- end -}}
{{- include "guardline.checks.port" (dict "found" .found "at" .at "worker" $worker "of" "review" "port" (int (dig "review" "port" 9470 $config))) -}}
{{- end -}}
{{- range $endpoint := dig "actions" "endpoints" list $config -}}
{{- range $header, $_ := (ternary $endpoint dict (kindIs "map" $endpoint)).headers | default dict -}}
{{- if regexMatch "(?i)auth|cookie|key|token|secret|password|signature" $header -}}
{{- include "guardline.refuse" (dict "found" $.found "say" (printf "%s: the header %s of the endpoint %v may hold a secret, which would be in a ConfigMap for everybody to read; put it into a Secret that secretFiles mounts, and name the file in header_files" $.at $header $endpoint.name)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Arguments: root, found, at, worker. */}}
{{- define "guardline.checks.autoscaling" -}}
{{- $scaling := .worker.autoscaling -}}
{{- if $scaling.enabled -}}
{{- $found := .found -}}
{{- $at := printf "%s.autoscaling" .at -}}
{{- $config := include "guardline.config" . | fromYaml -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- include "guardline.refuse" (dict "found" $found "say" (printf "%s.minReplicas: %d is above maxReplicas (%d)" $at (int $scaling.minReplicas) (int $scaling.maxReplicas))) -}}
{{- end -}}
{{- $inputs := dig "topics" "inputs" (list "moderation.chat" "moderation.comments") $config -}}
{{- $partitions := mul (dig "topics" "partitions" 6 $config) (len $inputs) -}}
{{- if and .root.Values.topicsJob.enabled (not (regexMatch "(^|,)\\^" (join "," $inputs))) (gt (int $scaling.maxReplicas) (int $partitions)) -}}
{{- include "guardline.refuse" (dict "found" $found "say" (printf "%s.maxReplicas: %d workers cannot share the %d partitions of topics.inputs; use at most %d, or raise topics.partitions" $at (int $scaling.maxReplicas) (int $partitions) (int $partitions))) -}}
{{- end -}}
{{- $every := int (include "guardline.scaleDownEverySeconds" .) -}}
{{- $termination := int (include "guardline.terminationSeconds" .) -}}
{{- if lt $every $termination -}}
{{- include "guardline.refuse" (dict "found" $found "say" (printf "%s.scaleDownEverySeconds: %d is below the termination (%d): the next worker would be removed while the last one still drains" $at $every $termination)) -}}
{{- end -}}
{{- if not (or $scaling.kafka.enabled $scaling.prometheus.enabled) -}}
{{- include "guardline.refuse" (dict "found" $found "say" (printf "%s: neither kafka nor prometheus is enabled, so KEDA has nothing to scale by" $at)) -}}
{{- end -}}
{{- if and $scaling.prometheus.enabled (not $scaling.prometheus.serverAddress) -}}
{{- include "guardline.refuse" (dict "found" $found "say" (printf "%s.prometheus.serverAddress: is not set; name your Prometheus, as in http://prometheus.monitoring:9090" $at)) -}}
{{- end -}}
{{- $properties := dig "kafka" "properties" dict $config -}}
{{- $protocol := index $properties "security.protocol" | default "" | upper -}}
{{- if $scaling.kafka.enabled -}}
{{- $variables := include "guardline.variables" . | fromYaml -}}
{{- with $variables.GUARDLINE_KAFKA__BOOTSTRAP_SERVERS -}}
{{- if not $scaling.kafka.bootstrapServers -}}
{{- include "guardline.refuse" (dict "found" $found "say" (printf "%s.kafka.bootstrapServers: is not set, and the brokers come from the variable %s, which the chart cannot give to KEDA; name them here" $at .)) -}}
{{- end -}}
{{- end -}}
{{- with $variables.GUARDLINE_KAFKA__GROUP -}}
{{- include "guardline.refuse" (dict "found" $found "say" (printf "%s.kafka: the group comes from the variable %s, which the chart cannot give to KEDA; set kafka.group in config" $at .)) -}}
{{- end -}}
{{- with $variables.GUARDLINE_KAFKA__PROPERTIES -}}
{{- if not $protocol -}}
{{- include "guardline.refuse" (dict "found" $found "say" (printf "%s.kafka: security.protocol may be in the variable %s, where the chart cannot read it, and KEDA would connect without TLS; set security.protocol in kafka.properties in config, PLAINTEXT too" $at .)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := $scaling.kafka.metadata -}}
{{- if has $name (list "bootstrapServers" "consumerGroup" "lagThreshold" "offsetResetPolicy" "topic" "tls" "sasl") -}}
{{- include "guardline.refuse" (dict "found" $found "say" (printf "%s.kafka.metadata.%s: the chart decides it: without a topic KEDA adds up the group's topics, and the rest follows from the settings" $at $name)) -}}
{{- end -}}
{{- end -}}
{{- if and $scaling.kafka.enabled (hasPrefix "SASL" $protocol) -}}
{{- if not (or $scaling.kafka.authentication $scaling.kafka.authenticationRef) -}}
{{- include "guardline.refuse" (dict "found" $found "say" (printf "%s.kafka.authentication: is not set, and the brokers require a login (security.protocol); name the Secret with KEDA's username and password" $at)) -}}
{{- end -}}
{{- if not (include "guardline.keda.sasl" $properties) -}}
{{- include "guardline.refuse" (dict "found" $found "say" (printf "%s.kafka: KEDA has no login mechanism that matches sasl.mechanism in kafka.properties; use PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER or GSSAPI" $at)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
