package storage

import (
	"encoding"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
)

// Secret is text that came from a secret file: a password, a user name, a URL. Printed, logged or encoded in any way,
// it shows the name of that file only. The zero value is no secret and prints as nothing.
type Secret struct {
	// content is a pointer, since fmt cannot call the methods of a Secret in an unexported field: it then prints an
	// address.
	content *string
	file    string
}

var (
	_ fmt.Formatter          = Secret{}
	_ fmt.GoStringer         = Secret{}
	_ encoding.TextMarshaler = Secret{}
	_ slog.LogValuer         = Secret{}
)

// NewSecret is the content of a file. Empty content is no secret.
func NewSecret(content, file string) Secret {
	if content == "" {
		return Secret{}
	}
	return Secret{&content, file}
}

// Reveal is the content, "" for none. It is for the backend's driver and for nobody else.
func (s Secret) Reveal() string {
	if s.content == nil {
		return ""
	}
	return *s.content
}

// File is the name of the file.
func (s Secret) File() string { return s.file }

// String says where the secret came from.
func (s Secret) String() string {
	switch {
	case s.content == nil:
		return ""
	case s.file == "":
		return "(secret)"
	}
	return "(content of " + s.file + ")"
}

// GoString is String, so that %#v shows no secret either.
func (s Secret) GoString() string { return s.String() }

// Format is String, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText is String, so that JSON and YAML show no secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue is String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Hide returns err with a text that shows none of the secrets, since servers and drivers quote what they were sent,
// whole or in part. errors.Is finds the cause as before. errors.As does not, since the cause has the text that is
// hidden.
func Hide(err error, secrets ...Secret) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	shown := HideIn(text, secrets...)
	if shown == text {
		return err
	}
	return &hiddenError{shown, func(target error) bool { return errors.Is(err, target) }}
}

// HideIn is text without the secrets; see [Hide].
func HideIn(text string, secrets ...Secret) string {
	for _, s := range secrets {
		text = s.hideIn(text)
	}
	return text
}

// hiddenError keeps its cause in a function, so that it cannot be printed.
type hiddenError struct {
	text string
	is   func(target error) bool
}

func (e *hiddenError) Error() string        { return e.text }
func (e *hiddenError) Is(target error) bool { return e.is(target) }

// leastHidden is the least number of bytes of a secret in a row that count as a part of it. Fewer occur by chance in
// every text.
const leastHidden = 6

// lineless is how Redis quotes what would break its line.
var lineless = strings.NewReplacer("\r", " ", "\n", " ")

// hideIn is text without the secret and without parts of it, as it is and as programs quote it.
func (s Secret) hideIn(text string) string {
	content := s.Reveal()
	if content == "" {
		return text
	}
	quoted, ascii := strconv.Quote(content), strconv.QuoteToASCII(content)
	forms := []string{content, lineless.Replace(content), quoted[1 : len(quoted)-1], ascii[1 : len(ascii)-1]}
	var out strings.Builder
	last := 0 // text before it has been written
	for i := 0; i < len(text); {
		n := 0
		for _, form := range forms {
			n = max(n, partOf(form, text, i))
		}
		if n == 0 {
			i++
			continue
		}
		out.WriteString(text[last:i])
		if last == 0 || i > last { // else this part follows the one before directly
			out.WriteString(s.String())
		}
		i += n
		last = i
	}
	if last == 0 {
		return text
	}
	out.WriteString(text[last:])
	return strings.ToValidUTF8(out.String(), "\uFFFD")
}

// partOf returns how many bytes of text from i on are a part of form, or 0 if they are fewer than leastHidden.
func partOf(form, text string, i int) int {
	n := min(leastHidden, len(form))
	if i+n > len(text) || !strings.Contains(form, text[i:i+n]) || n < leastHidden && !standsAlone(text, i, i+n) {
		return 0
	}
	for i+n < len(text) && strings.Contains(form, text[i:i+n+1]) {
		n++
	}
	return n
}

// standsAlone reports whether no letter or digit touches text[from:to], since a user name of two letters occurs within
// half of all words.
func standsAlone(text string, from, to int) bool {
	return (from == 0 || !isWord(text[from-1])) && (to == len(text) || !isWord(text[to]))
}

func isWord(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' || c >= 0x80
}
