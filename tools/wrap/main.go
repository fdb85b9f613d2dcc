// Wrap fills prose to one width: comments of Go, proto and Lua, and paragraphs of Markdown. It leaves alone what is
// laid out by hand: indented lines, lists, tables, code, headings and directives.
//
//	wrap [-dir FOLDER] [-check] FILE...
//
// With -check it changes nothing, names the files that are not as it would make them, and fails if there are any.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"
)

// width is how many columns a line has; a tab is four of them.
const width = 120

func main() {
	dir := flag.String("dir", ".", "the `folder` that files are relative to")
	check := flag.Bool("check", false, "change nothing; fail if anything is to be changed")
	flag.Parse()
	failed := false
	for _, path := range flag.Args() {
		changed, err := wrapFile(filepath.Join(*dir, path), !*check)
		if err != nil {
			fmt.Fprintf(os.Stderr, "wrap: %s: %v\n", path, err)
			failed = true
		}
		if changed && *check {
			fmt.Printf("%s: prose is not filled to %d columns: run make fmt\n", path, width)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
}

func wrapFile(path string, write bool) (changed bool, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	var prose func(text []byte) ([]bool, string, error)
	switch filepath.Ext(path) {
	case ".go":
		prose = goComments
	case ".proto":
		prose = commentLines("//")
	case ".lua":
		prose = commentLines("--")
	case ".md":
		prose = markdown
	default:
		return false, fmt.Errorf("neither Go, proto, Lua nor Markdown")
	}
	is, mark, err := prose(text)
	if err != nil {
		return false, err
	}
	got := fill(text, is, mark)
	if bytes.Equal(got, text) {
		return false, nil
	}
	if write {
		err = os.WriteFile(path, got, 0o644)
	}
	return true, err
}

// goComments marks the lines that hold nothing but a // comment, by their numbers from 0. Only the parser can tell them
// from lines of a raw string.
func goComments(text []byte) ([]bool, string, error) {
	files := token.NewFileSet()
	f, err := parser.ParseFile(files, "", text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, "", err
	}
	if ast.IsGenerated(f) {
		return nil, "", nil
	}
	lines := bytes.Split(text, []byte("\n"))
	is := make([]bool, len(lines))
	for _, group := range f.Comments {
		for _, c := range group.List {
			n := files.Position(c.Pos()).Line - 1
			is[n] = bytes.HasPrefix(bytes.TrimLeft(lines[n], "\t"), []byte("//"))
		}
	}
	return is, "//", nil
}

// commentLines marks the lines that begin with mark.
func commentLines(mark string) func([]byte) ([]bool, string, error) {
	return func(text []byte) ([]bool, string, error) {
		lines := bytes.Split(text, []byte("\n"))
		is := make([]bool, len(lines))
		for i, line := range lines {
			is[i] = bytes.HasPrefix(bytes.TrimLeft(line, " \t"), []byte(mark))
		}
		return is, mark, nil
	}
}

// markdown marks the lines of plain paragraphs, which have no mark.
func markdown(text []byte) ([]bool, string, error) {
	lines := bytes.Split(text, []byte("\n"))
	is := make([]bool, len(lines))
	fenced := false
	for i, line := range lines {
		if bytes.HasPrefix(bytes.TrimLeft(line, " "), []byte("```")) {
			fenced = !fenced
			continue
		}
		is[i] = !fenced
	}
	return is, "", nil
}

// item is what begins an item of a list, and the space behind it.
var item = regexp.MustCompile(`^( *)([-*]|[0-9]+\.) +`)

// link is what begins the definition of a link.
var link = regexp.MustCompile(`^\[[^\]]+\]: `)

// special matches a word that would not be prose at the beginning of a line.
var special = regexp.MustCompile(`^([-*+]|[0-9]+\.|nolint.*|[|#><+].*|---.*|===.*)$`)

// wordsOf splits text where a line may be broken: not within code, and not before a word that would begin a list or the
// like.
func wordsOf(text string) (words []string) {
	open := false // a word that ends within code
	for _, w := range strings.Fields(text) {
		if n := len(words); n > 0 && (open || special.MatchString(w)) {
			words[n-1] += " " + w
		} else {
			words = append(words, w)
		}
		open = open != (strings.Count(w, "`")%2 == 1)
	}
	return words
}

// fill fills the paragraphs among the lines that are prose.
func fill(text []byte, prose []bool, mark string) []byte {
	if prose == nil {
		return text
	}
	lines := strings.Split(string(text), "\n")
	var out []string
	for i := 0; i < len(lines); {
		indent, words, ok := paragraphLine(lines[i], mark)
		if !prose[i] || !ok {
			out = append(out, lines[i])
			i++
			continue
		}
		first, rest := indent, indent
		if m := item.FindString(words); m != "" && mark == "" {
			rest += strings.Repeat(" ", len(m))
			first, words = indent+m, words[len(m):]
		}
		all := words
		for i++; i < len(lines) && prose[i]; i++ {
			in, more, ok := paragraphLine(lines[i], mark)
			if !ok || in != rest && mark != "" || mark == "" && item.MatchString(strings.TrimLeft(lines[i], " ")) {
				break
			}
			all += " " + more
		}
		out = append(out, broken(first, rest, wordsOf(all))...)
	}
	return []byte(strings.Join(out, "\n"))
}

// paragraphLine splits a line into its indentation, the mark of a comment included, and its words. It is not ok if the
// line is not part of a paragraph.
func paragraphLine(line, mark string) (indent, words string, ok bool) {
	body := strings.TrimLeft(line, " \t")
	indent = line[:len(line)-len(body)]
	if mark != "" {
		if !strings.HasPrefix(body, mark+" ") { // a directive, a rule of dashes, an empty line
			return "", "", false
		}
		indent, body = indent+mark+" ", body[len(mark)+1:]
		switch {
		case strings.HasPrefix(body, " "), strings.HasPrefix(body, "\t"), strings.HasPrefix(body, "#"), strings.HasPrefix(body, "+"),
			link.MatchString(body), strings.HasPrefix(body, "- "), strings.HasPrefix(body, "nolint"), item.MatchString(body):
			return "", "", false
		}
		return indent, body, true
	}
	if body == "" || strings.HasSuffix(line, "  ") || strings.HasSuffix(line, `\`) || strings.ContainsAny(body[:1], "|#><") ||
		strings.HasPrefix(body, "---") || strings.HasPrefix(body, "===") || link.MatchString(body) || strings.HasPrefix(body, "![") || len(indent) >= 4 && !strings.Contains(body, " ") {
		return "", "", false
	}
	return indent, body, true
}

// broken lays words out in lines: the first begins with first, the others with rest.
func broken(first, rest string, words []string) (lines []string) {
	line, at := first, columns(first)
	empty := true
	for _, w := range words {
		n := utf8.RuneCountInString(w)
		if !empty && at+1+n > width {
			lines = append(lines, line)
			line, at, empty = rest, columns(rest), true
		}
		if !empty {
			line, at = line+" ", at+1
		}
		line, at, empty = line+w, at+n, false
	}
	return append(lines, line)
}

func columns(s string) (n int) {
	for _, r := range s {
		if n++; r == '\t' {
			n += 3
		}
	}
	return n
}
