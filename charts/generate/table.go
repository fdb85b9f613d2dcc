package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// table lists the values with their defaults and comments, in the order of the file. A value without a comment is an
// error, so that none stays unexplained.
func table(values []byte) ([]byte, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(values, &document); err != nil {
		return nil, err
	}
	if document.Kind != yaml.DocumentNode || document.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("it is no object")
	}
	var b bytes.Buffer
	b.WriteString("| value | default | what it is |\n|---|---|---|\n")
	err := rows(&b, "", document.Content[0])
	return b.Bytes(), err
}

func rows(b *bytes.Buffer, prefix string, object *yaml.Node) error {
	var errs []error
	for i := 0; i+1 < len(object.Content); i += 2 {
		key, value := object.Content[i], object.Content[i+1]
		path := prefix + key.Value
		comment := strings.ReplaceAll(strings.TrimPrefix(key.HeadComment, "# "), "\n# ", " ")
		if comment == "" {
			errs = append(errs, fmt.Errorf("line %d: %s has no comment", key.Line, path))
			continue
		}
		if explained(value) {
			fmt.Fprintf(b, "| **`%s`** | | **%s** |\n", path, comment)
			errs = append(errs, rows(b, path+".", value))
			continue
		}
		var v any
		if err := value.Decode(&v); err != nil {
			return err
		}
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "| `%s` | `%s` | %s |\n", path, text, strings.ReplaceAll(comment, "|", `\|`))
	}
	return errors.Join(errs...)
}

// explained reports whether value is an object whose members are values of their own: written one to a line. One in
// braces is a value as a whole.
func explained(value *yaml.Node) bool {
	return value.Kind == yaml.MappingNode && value.Style&yaml.FlowStyle == 0 && !hasBare(value)
}

// hasBare reports whether no member has a comment.
func hasBare(value *yaml.Node) bool {
	for i := 0; i < len(value.Content); i += 2 {
		if value.Content[i].HeadComment != "" {
			return false
		}
	}
	return true
}
