{{- define "sotto.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "sotto.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "sotto.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "sotto.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "sotto.selector" -}}
app.kubernetes.io/name: {{ include "sotto.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sotto.labels" -}}
{{ include "sotto.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "sotto.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "sotto.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "sotto.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* What the schema cannot say, or what older clients of Helm do not check. */}}
{{- define "sotto.check" -}}
{{- if eq .Values.mode "cluster" -}}
{{- $_ := required "mode cluster needs store.urlSecret.name: a Secret with the URL of PostgreSQL" .Values.store.urlSecret.name -}}
{{- $_ := required "mode cluster needs cluster.redisUrlSecret.name: a Secret with the URL of Redis" .Values.cluster.redisUrlSecret.name -}}
{{- $_ := required "mode cluster needs secretKey.name: all pods share one set of keys" .Values.secretKey.name -}}
{{- else if .Values.autoscaling.enabled -}}
{{- fail "mode sqlite has one pod: autoscaling needs mode cluster" -}}
{{- end -}}
{{- range $name := list "SOTTO_STORE__URL" "SOTTO_CLUSTER__REDIS_URL" "SOTTO_HTTP__LISTEN" "SOTTO_HTTP__ADMIN_LISTEN" "SOTTO_DATA__DIR" "SOTTO_DRAIN__TIMEOUT" "SOTTO_CLUSTER__NODE_ID" "SOTTO_AUTH__SECRET_KEY_FILE" "SOTTO_HTTP__TRUSTED_PROXIES" -}}
{{- if hasKey $.Values.config $name -}}
{{- fail (printf "config.%s is set by the chart: use the value that README.md names" $name) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.host is missing" -}}
{{- end -}}
{{- end -}}

{{- define "sotto.pod" -}}
metadata:
  labels:
    {{- include "sotto.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "sotto.serviceAccount" . }}
  automountServiceAccountToken: false
  # The variables of the services around would not be settings, but they are nobody's business here.
  enableServiceLinks: false
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  terminationGracePeriodSeconds: {{ add .Values.drain.preStopSeconds .Values.drain.timeoutSeconds .Values.drain.graceSeconds }}
  containers:
    - name: sotto
      image: {{ include "sotto.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: ["serve"]
      ports:
        - name: http
          containerPort: 8080
        - name: admin
          containerPort: 9090
      env:
        - name: POD_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        - name: SOTTO_CLUSTER__NODE_ID
          value: $(POD_NAME)
        - name: SOTTO_HTTP__LISTEN
          value: 0.0.0.0:8080
        - name: SOTTO_HTTP__ADMIN_LISTEN
          value: 0.0.0.0:9090
        - name: SOTTO_DATA__DIR
          value: /data
        - name: SOTTO_DRAIN__TIMEOUT
          value: {{ .Values.drain.timeoutSeconds | quote }}
        {{- with .Values.trustedProxies }}
        - name: SOTTO_HTTP__TRUSTED_PROXIES
          value: {{ join "," . | quote }}
        {{- end }}
        {{- if eq .Values.mode "cluster" }}
        - name: SOTTO_STORE__URL_FILE
          value: /secrets/store-url/{{ .Values.store.urlSecret.key }}
        - name: SOTTO_CLUSTER__REDIS_URL_FILE
          value: /secrets/redis-url/{{ .Values.cluster.redisUrlSecret.key }}
        {{- end }}
        {{- if .Values.secretKey.name }}
        - name: SOTTO_AUTH__SECRET_KEY_FILE
          value: /secrets/secret-key/{{ .Values.secretKey.key }}
        {{- end }}
        {{- range $index, $entry := .Values.secretConfig }}
        - name: {{ $entry.variable }}_FILE
          value: /secrets/config-{{ $index }}/{{ $entry.key }}
        {{- end }}
        {{- range $name, $value := .Values.config }}
        - name: {{ $name }}
          value: {{ $value | quote }}
        {{- end }}
      startupProbe:
        httpGet:
          path: /livez
          port: http
        {{- toYaml .Values.probes.startup | nindent 8 }}
      livenessProbe:
        httpGet:
          path: /livez
          port: http
        {{- toYaml .Values.probes.liveness | nindent 8 }}
      readinessProbe:
        httpGet:
          path: /readyz
          port: http
        {{- toYaml .Values.probes.readiness | nindent 8 }}
      lifecycle:
        preStop:
          # On SIGTERM the pod refuses connections at once: first everybody must have heard that it is going.
          sleep:
            seconds: {{ .Values.drain.preStopSeconds }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: ["ALL"]
      volumeMounts:
        - name: data
          mountPath: /data
        - name: tmp
          mountPath: /tmp
        {{- if eq .Values.mode "cluster" }}
        - name: store-url
          mountPath: /secrets/store-url
          readOnly: true
        - name: redis-url
          mountPath: /secrets/redis-url
          readOnly: true
        {{- end }}
        {{- if .Values.secretKey.name }}
        - name: secret-key
          mountPath: /secrets/secret-key
          readOnly: true
        {{- end }}
        {{- range $index, $entry := .Values.secretConfig }}
        - name: config-{{ $index }}
          mountPath: /secrets/config-{{ $index }}
          readOnly: true
        {{- end }}
  volumes:
    {{- if eq .Values.mode "cluster" }}
    - name: data
      emptyDir:
        sizeLimit: 64Mi
    - name: store-url
      secret:
        secretName: {{ .Values.store.urlSecret.name }}
        # With fsGroup the files belong to root and may be read by the pod's group.
        defaultMode: 0440
    - name: redis-url
      secret:
        secretName: {{ .Values.cluster.redisUrlSecret.name }}
        defaultMode: 0440
    {{- end }}
    {{- if .Values.secretKey.name }}
    - name: secret-key
      secret:
        secretName: {{ .Values.secretKey.name }}
        defaultMode: 0440
    {{- end }}
    {{- range $index, $entry := .Values.secretConfig }}
    - name: config-{{ $index }}
      secret:
        secretName: {{ $entry.secret }}
        defaultMode: 0440
    {{- end }}
    - name: tmp
      emptyDir:
        sizeLimit: 64Mi
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  affinity:
    {{- if .Values.affinity }}
    {{- toYaml .Values.affinity | nindent 4 }}
    {{- else if eq .Values.antiAffinity "hard" }}
    podAntiAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        - topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "sotto.selector" . | nindent 14 }}
    {{- else }}
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm:
            topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels:
                {{- include "sotto.selector" . | nindent 16 }}
    {{- end }}
{{- end -}}
