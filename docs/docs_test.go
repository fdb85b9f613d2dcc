package docs

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	root   = ".."
	module = "github.com/sidecart/sidecart"
	rooms  = "design/0001-architecture-and-the-commit.md"
)

var code = regexp.MustCompile("`([^`]+)`")

// TestRooms holds the table of rooms against what the packages import, tests left aside.
func TestRooms(t *testing.T) {
	table, err := os.ReadFile(rooms)
	if err != nil {
		t.Fatal(err)
	}
	may := map[string][]string{}
	inTable := false
	for line := range strings.Lines(string(table)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		switch {
		case strings.HasPrefix(line, "| room | owns |"):
			inTable = true
		case !strings.HasPrefix(line, "|"):
			inTable = false
		case inTable && len(cells) == 3:
			var imports []string
			for _, m := range code.FindAllStringSubmatch(cells[2], -1) {
				imports = append(imports, m[1])
			}
			if strings.Contains(cells[2], "every backend") {
				imports = append(imports, "internal/storage/")
			}
			for _, m := range code.FindAllStringSubmatch(cells[0], -1) {
				may[m[1]] = append([]string{}, imports...)
			}
		}
	}
	if len(may) < 10 {
		t.Fatalf("%d rooms in %s", len(may), rooms)
	}

	list := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./api/...", "./cmd/...", "./docs", "./internal/...", "./proto/...")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		room := strings.TrimPrefix(p.ImportPath, module+"/")
		seen[room] = true
		allowed, ok := may[room]
		if !ok {
			t.Errorf("%s is in no row of the table of rooms in %s", room, rooms)
			continue
		}
		for _, path := range p.Imports {
			other, ours := strings.CutPrefix(path, module+"/")
			if ours && !slices.ContainsFunc(allowed, func(a string) bool {
				return a == other || strings.HasSuffix(a, "/") && strings.HasPrefix(other, a)
			}) {
				t.Errorf("%s imports %s, which its row in %s does not allow", room, other, rooms)
			}
		}
	}
	for room := range may {
		if !seen[room] {
			t.Errorf("%s has a row in %s and is not there", room, rooms)
		}
	}
}

// TestPaths: a file that a page names is there.
func TestPaths(t *testing.T) {
	var pages []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/design/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	path := regexp.MustCompile(`^(api|charts|cmd|config|docs|e2e|examples|hack|images|internal|proto|tools)/[A-Za-z0-9_./-]+$`)
	symbol := regexp.MustCompile(`\.[A-Z]\w*$`) // of a package that is named by its path
	n := 0
	for _, page := range pages {
		if filepath.Base(page) == "CHANGELOG.md" { // it tells of what is gone, too
			continue
		}
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range code.FindAllStringSubmatch(string(text), -1) {
			name := symbol.ReplaceAllString(strings.TrimSuffix(m[1], "/..."), "")
			if !path.MatchString(name) || strings.HasSuffix(name, ".") {
				continue
			}
			n++
			if _, err := os.Stat(filepath.Join(root, name)); err != nil {
				t.Errorf("%s names %s, which is not there", page, name)
			}
		}
	}
	if n < 20 {
		t.Errorf("%d paths found", n)
	}
}

// TestImages: an image that a page shows is there and has a text alternative, and each plot is shown.
func TestImages(t *testing.T) {
	image := regexp.MustCompile(`!\[([^\]]*)\]\(([^)\s]+)\)`)
	tag := regexp.MustCompile(`<img\b[^>]*>`)
	shown := map[string]bool{}
	err := filepath.WalkDir(root, func(page string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := e.Name(); e.IsDir() && page != root && (strings.HasPrefix(name, ".") || name == "node_modules" || name == "dist") {
			return filepath.SkipDir
		}
		if filepath.Ext(page) != ".md" {
			return nil
		}
		text, err := os.ReadFile(page)
		if err != nil {
			return err
		}
		if html := tag.Find(text); html != nil {
			t.Errorf("%s shows an image by %s: write ![what it shows](path)", page, html)
		}
		for _, m := range image.FindAllStringSubmatch(string(text), -1) {
			if len(strings.Fields(m[1])) < 2 {
				t.Errorf("%s shows %s without saying in words what it shows: %q", page, m[2], m[1])
			}
			file := filepath.Join(filepath.Dir(page), m[2])
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s shows %s, which is not there", page, m[2])
			}
			shown[file] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	plots, err := filepath.Glob("plots/*.svg")
	if err != nil {
		t.Fatal(err)
	}
	for _, plot := range plots {
		if !shown[filepath.Join(root, "docs", plot)] {
			t.Errorf("no page shows %s", plot)
		}
	}
}
