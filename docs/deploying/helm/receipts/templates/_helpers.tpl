{{/* Names, labels, and the parts that all pods share. */}}

{{- define "receipts.name" -}}
{{- if contains "receipts" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-receipts" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "receipts.selector" -}}
app.kubernetes.io/name: receipts
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "receipts.labels" -}}
{{ include "receipts.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "receipts.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "receipts.name" .) .Values.serviceAccount.name }}
{{- else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{- define "receipts.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}{{ end }}
{{- end }}

{{/* Contradictions that a JSON schema cannot name. */}}
{{- define "receipts.check" -}}
{{- if not .Values.kafka.bootstrap }}{{ fail "kafka.bootstrap is missing: name the brokers, HOST:PORT,…" }}{{ end }}
{{- if and (not .Values.peers.existingSecret) (not .Values.peers.insecure) }}
{{- fail "peers.existingSecret is missing: name a Secret with the key `secret`, or set peers.insecure=true on a network that keeps strangers out" }}
{{- end }}
{{- if and (not .Values.auth.issuer) (not .Values.auth.jwksSecret) (not .Values.auth.insecure) }}
{{- fail "auth.issuer or auth.jwksSecret is missing: callers prove who they are by tokens; or set auth.insecure=true on a network that keeps strangers out" }}
{{- end }}
{{- if and .Values.kafka.secret.properties (not .Values.kafka.secret.name) }}{{ fail "kafka.secret.properties needs kafka.secret.name" }}{{ end }}
{{- if and .Values.kafka.secret.files (not .Values.kafka.secret.name) }}{{ fail "kafka.secret.files needs kafka.secret.name" }}{{ end }}
{{- end }}

{{/* A table as TOML. toToml would write whole numbers of values.yaml as 24.0 and 2.592e+09. */}}
{{- define "receipts.toml" -}}
{{- range $key, $value := .table }}{{ if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ include "receipts.toml.key" $key }} = {{ include "receipts.toml.value" $value }}
{{- end }}{{ end }}
{{- $path := .path }}
{{- range $key, $value := .table }}{{ if kindIs "map" $value }}
{{- $here := printf "%s%s" (ternary "" (printf "%s." $path) (eq $path "")) (include "receipts.toml.key" $key) }}

[{{ $here }}]
{{- include "receipts.toml" (dict "table" $value "path" $here) }}
{{- end }}{{ end }}
{{- end }}

{{- define "receipts.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toJson . }}{{ end }}
{{- end }}

{{- define "receipts.toml.value" -}}
{{- if kindIs "slice" . }}[{{ range $at, $item := . }}{{ if $at }}, {{ end }}{{ include "receipts.toml.value" $item }}{{ end }}]
{{- else if and (kindIs "float64" .) (eq (floor .) .) }}{{ printf "%.0f" . }}
{{- else }}{{ toJson . }}{{ end }}
{{- end }}

{{/* The settings file. What the chart sets wins over the values. */}}
{{- define "receipts.settings" -}}
{{- $own := dict
  "data_dir" "/var/lib/receipts"
  "http" (dict "listen" "0.0.0.0:8080" "admin_listen" "0.0.0.0:8082" "insecure_listen" .Values.auth.insecure)
  "projector" (dict "listen" "0.0.0.0:8081" "insecure_listen" .Values.peers.insecure)
  "telemetry" (dict "log_format" "json")
-}}
{{- $name := include "receipts.name" . -}}
{{- /* One name with the addresses of all of them, asked again and again: more replicas need no restart of the edges. */ -}}
{{- $query := dict "projectors" (list (printf "%s-projectors:8081" $name)) -}}
{{- if .Values.peers.existingSecret }}{{ $_ := set $query "secret_file" "/etc/receipts/peers/secret" }}{{ end -}}
{{- $_ := set $own "query" $query -}}
{{- $auth := dict -}}
{{- with .Values.auth.issuer }}{{ $_ := set $auth "issuer" . }}{{ end -}}
{{- with .Values.auth.audience }}{{ $_ := set $auth "audience" . }}{{ end -}}
{{- if .Values.auth.jwksSecret }}{{ $_ := set $auth "jwks_file" "/etc/receipts/auth/jwks.json" }}{{ end -}}
{{- if $auth }}{{ $_ := set $own "auth" $auth }}{{ end -}}
{{- if .Values.tls.existingSecret }}
{{- $_ := set $own.http "tls_certificate_file" "/etc/receipts/tls/tls.crt" }}{{ $_ := set $own.http "tls_key_file" "/etc/receipts/tls/tls.key" }}
{{- end -}}
{{- with .Values.snapshots.url }}{{ $_ := set $own "snapshot" (dict "url" .) }}{{ end -}}
{{- $kafka := dict "bootstrap" .Values.kafka.bootstrap -}}
{{- $properties := deepCopy .Values.kafka.properties -}}
{{- range $property, $key := .Values.kafka.secret.files }}{{ $_ := set $properties $property (printf "/etc/receipts/kafka/%s" $key) }}{{ end -}}
{{- if $properties }}{{ $_ := set $kafka "properties" $properties }}{{ end -}}
{{- $files := dict -}}
{{- range $property, $key := .Values.kafka.secret.properties }}{{ $_ := set $files $property (printf "/etc/receipts/kafka/%s" $key) }}{{ end -}}
{{- if $files }}{{ $_ := set $kafka "property_files" $files }}{{ end -}}
{{- $_ := set $own "kafka" $kafka -}}
{{- include "receipts.toml" (dict "table" (mergeOverwrite (deepCopy .Values.settings) $own) "path" "") | trim -}}
{{- end }}

{{/* The fields of a pod: (dict "root" $ "kind" "query" "values" .Values.query "command" "receipts-query" "port" 8080 "isProjector" false). */}}
{{- define "receipts.pod" -}}
{{- $values := .values -}}
{{- with .root }}
serviceAccountName: {{ include "receipts.serviceAccount" . }}
automountServiceAccountToken: false
# The variables of a Service called `receipts` look like settings.
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- range $field := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" }}
{{- with index $values $field }}
{{ $field }}: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
containers:
  - name: {{ .kind }}
    image: {{ include "receipts.image" .root | quote }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    command: {{ .command | toJson }}
    env:
      - {name: RECEIPTS_CONFIG, value: /etc/receipts/receipts.toml}
{{- if .isProjector }}
      - name: POD_NAME
        valueFrom: {fieldRef: {fieldPath: metadata.name}}
      - {name: RECEIPTS_PROJECTOR__ADVERTISE, value: {{ printf "$(POD_NAME).%s-projectors:8081" (include "receipts.name" .root) | quote }}}
{{- if eq .kind "standby" }}
      - {name: RECEIPTS_PROJECTOR__STANDBY, value: "true"}
{{- end }}
{{- with .root.Values.snapshots.credentialsSecret }}
    envFrom:
      - secretRef: {name: {{ . | quote }}}
{{- end }}
{{- end }}
    ports:
      - {name: http, containerPort: {{ .port }}}
      - {name: admin, containerPort: 8082}
    # A process that is alive is not restarted for a wrong setting of its surroundings.
    livenessProbe:
      httpGet: {path: /livez, port: admin}
      periodSeconds: 10
      failureThreshold: 6
    startupProbe:
      httpGet: {path: /livez, port: admin}
      periodSeconds: 2
      # A restore from a snapshot, and the repair of a store after a kill, may take minutes.
      failureThreshold: {{ if .isProjector }}900{{ else }}60{{ end }}
    readinessProbe:
      httpGet: {path: /readyz, port: admin}
      periodSeconds: 5
      failureThreshold: 2
    resources: {{- toYaml $values.resources | nindent 6 }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
    volumeMounts:
      - {name: settings, mountPath: /etc/receipts/receipts.toml, subPath: receipts.toml, readOnly: true}
      - {name: tmp, mountPath: /tmp}
{{- if .isProjector }}
      - {name: data, mountPath: /var/lib/receipts}
{{- end }}
{{- if .root.Values.peers.existingSecret }}
      - {name: peers, mountPath: /etc/receipts/peers, readOnly: true}
{{- end }}
{{- if .root.Values.kafka.secret.name }}
      - {name: kafka, mountPath: /etc/receipts/kafka, readOnly: true}
{{- end }}
{{- if not .isProjector }}
{{- if .root.Values.tls.existingSecret }}
      - {name: tls, mountPath: /etc/receipts/tls, readOnly: true}
{{- end }}
{{- if .root.Values.auth.jwksSecret }}
      - {name: auth, mountPath: /etc/receipts/auth, readOnly: true}
{{- end }}
{{- end }}
volumes:
  - name: settings
    configMap: {name: {{ include "receipts.name" .root }}}
  - name: tmp
    emptyDir: {}
{{- range $name, $secret := dict "peers" .root.Values.peers.existingSecret "kafka" .root.Values.kafka.secret.name "tls" (.isProjector | ternary "" .root.Values.tls.existingSecret) "auth" (.isProjector | ternary "" .root.Values.auth.jwksSecret) }}
{{- with $secret }}
  # Kubernetes opens files of Secrets to the group of fsGroup, which has no other member.
  - name: {{ $name }}
    secret: {secretName: {{ . | quote }}, defaultMode: 0o440}
{{- end }}
{{- end }}
{{- end }}
