{{- /* What selects the operator's pods. It can never change, and is that of config/, so that a release can take an
       installation over. */ -}}
{{- define "sidecart.selectorLabels" -}}
app.kubernetes.io/name: sidecart-operator
{{- end }}

{{- define "sidecart.labels" -}}
{{ include "sidecart.selectorLabels" . }}
{{ include "sidecart.commonLabels" . }}
{{- end }}

{{- /* The labels of everything, beside its name. */ -}}
{{- define "sidecart.commonLabels" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: sidecart
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* A reference from repository, tag and digest: list of the image and the root. */ -}}
{{- define "sidecart.image" -}}
{{- $image := index . 0 -}}
{{- $tag := $image.tag -}}
{{- if not (or $tag $image.digest) }}{{ $tag = (index . 1).Chart.AppVersion }}{{ end -}}
{{ $image.repository }}{{ with $tag }}:{{ . }}{{ end }}{{ with $image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "sidecart.certManager" -}}
{{- if eq .Values.webhook.certificate.source "cert-manager" }}true{{ end -}}
{{- end }}

{{- /* The ports of a NetworkPolicy that are none of a list: TCP in ranges, and all of the other protocols. */ -}}
{{- define "sidecart.otherPorts" -}}
{{- $padded := list -}}
{{- range . }}{{ $padded = append $padded (printf "%05d" (int .)) }}{{ end -}}
{{- $from := 1 -}}
{{- range sortAlpha (uniq $padded) }}
{{- $port := int (regexReplaceAll "^0+" . "") }}
{{- if lt $from $port }}
- {protocol: TCP, port: {{ $from }}, endPort: {{ sub $port 1 }}}
{{- end }}
{{- $from = add1 $port }}
{{- end }}
{{- if le (int $from) 65535 }}
- {protocol: TCP, port: {{ $from }}, endPort: 65535}
{{- end }}
- {protocol: UDP, port: 1, endPort: 65535}
- {protocol: SCTP, port: 1, endPort: 65535}
{{- end }}
