// Command generate writes what the chart has from elsewhere: the templates of the definition of CartStorage, of the
// roles and of the policies, from config/, and the table of values in README.md, from the comments of values.yaml. It
// runs in the folder charts.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := run(".."); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// run writes the files of the chart in the checkout at root.
func run(root string) error {
	chart := filepath.Join(root, "charts", "sidecart")
	crd, err := definition(filepath.Join(root, "config", "crd", "bases"))
	if err != nil {
		return err
	}
	roles, err := roles(filepath.Join(root, "config", "rbac"))
	if err != nil {
		return err
	}
	policies, err := policies(filepath.Join(root, "config", "policy"))
	if err != nil {
		return err
	}
	values, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err != nil {
		return err
	}
	table, err := table(values)
	if err != nil {
		return fmt.Errorf("values.yaml: %w", err)
	}
	readme, err := os.ReadFile(filepath.Join(chart, "README.md"))
	if err != nil {
		return err
	}
	if readme, err = between(readme, table); err != nil {
		return fmt.Errorf("README.md: %w", err)
	}
	for name, content := range map[string][]byte{
		filepath.Join("templates", "crd.yaml"):             crd,
		filepath.Join("templates", "rbac.yaml"):            roles,
		filepath.Join("templates", "admissionpolicy.yaml"): policies,
		"README.md": readme,
	} {
		if err := os.WriteFile(filepath.Join(chart, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

const (
	tableStart = "<!-- values: make generate writes this table -->\n"
	tableEnd   = "<!-- /values -->\n"
)

// between is document with its table replaced.
func between(document, table []byte) ([]byte, error) {
	before, rest, ok := bytes.Cut(document, []byte(tableStart))
	_, after, closed := bytes.Cut(rest, []byte(tableEnd))
	if !ok || !closed {
		return nil, fmt.Errorf("no %q and %q", tableStart, tableEnd)
	}
	return bytes.Join([][]byte{before, []byte(tableStart), table, []byte(tableEnd), after}, nil), nil
}
