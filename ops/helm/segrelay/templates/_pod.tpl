{{/* Parts that all pods share. Each takes a dictionary: `root`, the values of the chart, and `name`,
the component, whose table in the values has its resources and the keys of the secrets that it sees. */}}

{{- define "segrelay.labels" -}}
app.kubernetes.io/name: segrelay
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{/* A changed configuration or secret restarts the pods. A changed template does not: workers take
it over while they run. */}}
{{- define "segrelay.metadata" -}}
labels: {{- include "segrelay.labels" . | nindent 2 }}
annotations:
  checksum/configuration: {{ list .root.Values.configuration .root.Values.secrets | toJson | sha256sum }}
{{- end }}

{{- define "segrelay.pod" -}}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  seccompProfile: {type: RuntimeDefault}
volumes:
  # One folder: the configuration, and below it templates/ and secrets/.
  - name: configuration
    projected:
      defaultMode: 0440
      sources:
        - configMap:
            name: segrelay
            items: [{key: segrelay.toml, path: segrelay.toml}]
        - configMap:
            name: segrelay-templates
            # Each template is named: a projected volume has no other way to put it into a folder.
            items: [{{ range $name, $text := .root.Values.templates }}{key: {{ $name | replace "/" "." }}, path: templates/{{ $name }}}, {{ end }}]
        # No other secrets than those that are needed here.
        - secret:
            name: {{ .root.Values.existingSecret | default "segrelay" }}
            items: [{{ range (index .root.Values .name).secrets }}{key: {{ . }}, path: secrets/{{ . }}}, {{ end }}]
  - name: tmp
    emptyDir: {sizeLimit: 256Mi}
  # For what commands write in a pod, such as `segrelay outcomes export`.
  - name: exports
    {{- if .root.Values.exports.claim }}
    persistentVolumeClaim: {claimName: {{ .root.Values.exports.claim }}}
    {{- else }}
    emptyDir: {sizeLimit: {{ .root.Values.exports.size }}}
    {{- end }}
{{- end }}

{{- define "segrelay.container" -}}
name: {{ .name }}
image: {{ .root.Values.image.repository }}:{{ .root.Values.image.tag }}
resources: {{ toJson (index .root.Values .name).resources }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: ["ALL"]}
volumeMounts:
  - {name: configuration, mountPath: /etc/segrelay, readOnly: true}
  - {name: tmp, mountPath: /tmp}
  - {name: exports, mountPath: /exports}
{{- end }}

{{/* A server of ours with one pod: a deployment and its service. Beside the above it takes `command`
and `port`, and `path`, at which it says that it runs. */}}
{{- define "segrelay.server" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: segrelay-{{ .name }}
  labels: {{- include "segrelay.labels" . | nindent 4 }}
spec:
  replicas: {{ (index .root.Values .name).replicas }}
  selector:
    matchLabels: {{- include "segrelay.labels" . | nindent 6 }}
  template:
    metadata: {{- include "segrelay.metadata" . | nindent 6 }}
    spec:
      {{- include "segrelay.pod" . | nindent 6 }}
      containers:
        - {{- include "segrelay.container" . | nindent 10 }}
          args: ["segrelay", "{{ .name }}", "--listen", "0.0.0.0:{{ .port }}"]
          env:
            - name: SEGRELAY_CONFIG
              value: /etc/segrelay/segrelay.toml
          ports:
            - {name: {{ .name }}, containerPort: {{ .port }}}
          # It answers also while Redis is away: then it says that. The console knows no other hosts
          # than its own.
          readinessProbe:
            httpGet: {path: {{ .path }}, port: {{ .name }}, httpHeaders: [{name: Host, value: 127.0.0.1}]}
            timeoutSeconds: 5
          livenessProbe:
            httpGet: {path: {{ .path }}, port: {{ .name }}, httpHeaders: [{name: Host, value: 127.0.0.1}]}
            timeoutSeconds: 5
            periodSeconds: 30
---
apiVersion: v1
kind: Service
metadata:
  name: segrelay-{{ .name }}
  labels: {{- include "segrelay.labels" . | nindent 4 }}
spec:
  selector: {{- include "segrelay.labels" . | nindent 4 }}
  ports:
    - {name: {{ .name }}, port: {{ .port }}, targetPort: {{ .name }}}
{{- end }}
