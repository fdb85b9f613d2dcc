package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	header = "{{- /* Made from %s by make generate: do not edit. */ -}}\n{{- if .Values.%s }}\n"
	footer = "{{- end }}\n"
	labels = "  labels:\n    {{- include \"sidecart.labels\" . | nindent 4 }}\n"
	keep   = "  annotations:\n    # Without it Helm would remove every CartStorage with the release.\n    helm.sh/resource-policy: keep\n"
)

// ownNamespace is where config/ installs the operator.
const ownNamespace = "sidecart-system"

// definition is the template of all CRDs in dir. They are templates, and not in the folder crds of the chart, since
// Helm never upgrades what is there.
func definition(dir string) ([]byte, error) {
	return template(dir, fmt.Sprintf(header, "config/crd/bases", "crds.install"), func(text string) string {
		return strings.Replace(text, "metadata:\n  annotations:\n", "metadata:\n"+labels+keep, 1)
	})
}

// roles is the template of all roles and bindings in dir, for the namespace of the release. Where the operator keeps
// named namespaces only, it has the rules of its ClusterRole by a Role in each of them.
func roles(dir string) ([]byte, error) {
	return template(dir, fmt.Sprintf(header, "config/rbac", "rbac.create"), func(text string) string {
		text = strings.ReplaceAll(text, "namespace: "+ownNamespace, "namespace: {{ .Release.Namespace }}")
		if strings.Contains(text, "\n  labels:\n") {
			return strings.Replace(text, "\n  labels:\n", "\n"+labels, 1)
		}
		everywhere := strings.Replace(text, "metadata:\n", "metadata:\n"+labels, 1)
		for _, r := range namespaced {
			if strings.Contains(text, "\n  name: "+r.name+"\n") && strings.Contains(text, "\nkind: ClusterRole") {
				return r.eitherWay(everywhere)
			}
		}
		return everywhere
	})
}

// namespaced are the ClusterRoles whose rules are about namespaces, with the name of the Roles that stand for them, and
// the value that turns them on, if one does.
var namespaced = []namespacedRole{
	{"sidecart-operator", "sidecart-cartstorages", ""},
	{"sidecart-operator-rollouts", "sidecart-rollouts", ".Values.rollouts.enabled"},
}

type namespacedRole struct{ name, role, value string }

// eitherWay is a ClusterRole or its binding where the operator keeps every namespace, and otherwise the same in each
// that it keeps.
func (r namespacedRole) eitherWay(everywhere string) string {
	named := strings.NewReplacer("kind: ClusterRole", "kind: Role", "which are all of them", "here {{ . }}", "{{ .Release", "{{ $.Release", `" . |`, `" $ |`,
		"\n  name: "+r.name+"\n", "\n  name: "+r.role+"\n  namespace: {{ . }}\n", "name: "+r.name+"}", "name: "+r.role+"}").Replace(everywhere)
	text := "{{- if not .Values.watchNamespaces }}\n---\n" + strings.TrimSuffix(everywhere, "\n") + "\n{{- end }}\n" +
		"{{- range .Values.watchNamespaces }}\n---\n" + strings.TrimSuffix(named, "\n") + "\n{{- end }}\n"
	if r.value != "" {
		text = "{{- if " + r.value + " }}\n" + text + "{{- end }}\n"
	}
	return text
}

// policyHeader leaves the policies out where the API server does not know them. The version is asked, and not what the
// server says that it knows, since Helm has no list of kinds where it only renders.
const policyHeader = "{{- /* Made from config/policy by make generate: do not edit. */ -}}\n" +
	"{{- if and .Values.admissionPolicy.enabled (semverCompare \">=1.30.0-0\" .Capabilities.KubeVersion.Version) }}\n"

// policies is the template of what the API server refuses to the operator's account in dir, for that of the release.
func policies(dir string) ([]byte, error) {
	return template(dir, policyHeader, func(text string) string {
		text = strings.ReplaceAll(text, ownNamespace, "{{ .Release.Namespace }}")
		return strings.Replace(text, "metadata:\n", "metadata:\n"+labels, 1)
	})
}

// template is all documents of the YAML files in dir, each as change makes it. Every one must have been given the
// labels of the chart.
func template(dir, header string, change func(string) string) ([]byte, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has no YAML files", dir)
	}
	slices.Sort(files)
	var b bytes.Buffer
	b.WriteString(header)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for document := range strings.SplitSeq("\n"+string(data), "\n---\n") {
			document = strings.TrimPrefix(document, "\n")
			if document == "" {
				continue
			}
			// Text that looks like a template stays text.
			document = change(strings.ReplaceAll(document, "{{", "{{ `{{` }}"))
			if !strings.Contains(document, labels) {
				return nil, fmt.Errorf("%s: an object has no metadata where it is looked for", file)
			}
			if !strings.HasPrefix(document, "{{- if ") { // else the separator is within the condition
				b.WriteString("---\n")
			}
			b.WriteString(strings.TrimSuffix(document, "\n") + "\n")
		}
	}
	b.WriteString(footer)
	return b.Bytes(), nil
}
