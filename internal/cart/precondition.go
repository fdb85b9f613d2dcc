package cart

import (
	"fmt"
	"strings"
)

// Precondition is what a client demands of the current state. The zero value demands nothing.
type Precondition struct {
	// IfMatch holds etags as the client gave them. One of them must be current. "*" demands that the resource exists.
	// An empty list demands nothing.
	IfMatch []string
	// IfNoneMatch demands that the resource does not exist ("*").
	IfNoneMatch bool
}

// ParsePrecondition reads the values of If-Match and If-None-Match headers ("" for none). If-Match is a comma-separated
// list of etags, quoted or not. A weak etag never matches, and neither does a list that names no etag. If-None-Match of
// a change must be "*"; anything else is an [*InvalidError]. White space alone is an [*InvalidError] too, because the
// client meant to demand something.
func ParsePrecondition(ifMatch, ifNoneMatch string) (Precondition, error) {
	if ifMatch != "" && strings.TrimSpace(ifMatch) == "" {
		return Precondition{}, Invalidf("If-Match", `must not be empty: give an etag, "*", or leave it out`)
	}
	if ifNoneMatch != "" && strings.TrimSpace(ifNoneMatch) == "" {
		return Precondition{}, Invalidf("If-None-Match", `must not be empty: give "*", or leave it out`)
	}
	p := Precondition{IfMatch: splitETags(ifMatch)}
	if len(p.IfMatch) == 0 && ifMatch != "" {
		// The list names no etag, but the client meant to prevent a change.
		p.IfMatch = []string{strings.TrimSpace(ifMatch)}
	}
	switch strings.TrimSpace(ifNoneMatch) {
	case "":
	case "*":
		p.IfNoneMatch = true
	default:
		return Precondition{}, Invalidf("If-None-Match", `must be "*" on a change, not %q`, shorten(ifNoneMatch))
	}
	return p, nil
}

// splitETags splits at the commas outside of quotes. Quotes stay, and weak etags keep their W/.
func splitETags(list string) (etags []string) {
	quoted, start := false, 0
	add := func(s string) {
		if s = strings.TrimSpace(s); s != "" {
			etags = append(etags, s)
		}
	}
	for i := 0; i < len(list); i++ {
		switch {
		case list[i] == '"':
			quoted = !quoted
		case list[i] == ',' && !quoted:
			add(list[start:i])
			start = i + 1
		}
	}
	add(list[start:])
	return etags
}

// Check compares the precondition with the current state of scope, which the request is about. scope is one part,
// [PartAll], or [PartMetadataAll] for the metadata as a whole. Check accepts the etag of the scope and the etag of the
// whole cart. The error is a [*ConflictError].
func (p Precondition) Check(c *Cart, scope Part) error {
	current := c.PartVersion(scope)
	if p.IfNoneMatch && c.has(scope) {
		return &ConflictError{Current: current, Problem: fmt.Sprintf("%s there already, at version %d", subject(scope, "is", "are"), current)}
	}
	if len(p.IfMatch) == 0 {
		return nil
	}
	var first tag // the first valid etag
	for _, s := range p.IfMatch {
		if s == "*" {
			if c.has(scope) {
				return nil
			}
			continue
		}
		t, ok := parseTag(unquote(s))
		if !ok {
			continue
		}
		if t.holds(c, scope) {
			return nil
		}
		if first.kind == 0 {
			first = t
		}
	}
	return &ConflictError{Attempted: first.version, Current: current, Problem: p.mismatch(c, scope, first)}
}

// PartMetadataAll is the scope of a request on all metadata.
const PartMetadataAll Part = "metadata"

// has reports whether the resource that scope names exists.
func (c *Cart) has(scope Part) bool {
	if key, ok := scope.MetadataKey(); ok {
		value, _ := c.MetadataValue(key)
		return value != nil
	}
	return c.Exists() && c.PartVersion(scope) > 0
}

// unquote removes the quotes around an etag. A weak etag keeps its W/ and so never parses.
func unquote(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}

// mismatch says in words why none of the etags is current. first is the first valid one.
func (p Precondition) mismatch(c *Cart, scope Part, first tag) string {
	given := p.IfMatch[0]
	switch {
	case first.kind == 0 && given == "*":
		return subject(scope, "is", "are") + " not there"
	case first.kind == 0 && strings.HasPrefix(given, "W/"):
		return fmt.Sprintf("%q is a weak etag, which never matches", shorten(given))
	case first.kind == 0:
		return fmt.Sprintf("%q is no etag of this cart", shorten(unquote(given)))
	case first.version == 0 && first.cart == noCart && first.kind == kindCart:
		return fmt.Sprintf("there is a cart now, at version %d", c.Version)
	case (first.cart == noCart || first.cart == c.tag(PartAll).cart) && first.version == 0 && first.isOf(c.tag(scope)):
		return fmt.Sprintf("%s set meanwhile, at version %d", subject(scope, "was", "were"), c.PartVersion(scope))
	case first.cart == noCart:
		return "the etag is of another part of the cart"
	case !c.Exists():
		return "there is no such cart any more"
	case first.cart != c.tag(PartAll).cart:
		return "the cart was made anew since, or the etag is of another cart"
	case first.kind == kindCart:
		return fmt.Sprintf("the cart is at version %d, not %d", c.Version, first.version)
	case !first.isOf(c.tag(scope)):
		return "the etag is of another part of the cart"
	}
	return fmt.Sprintf("%s at version %d, not %d", subject(scope, "is", "are"), c.PartVersion(scope), first.version)
}

// subject begins a sentence about a part.
func subject(scope Part, singular, plural string) string {
	switch scope {
	case PartAll:
		return "the cart " + singular
	case PartItems, PartConditions:
		return string(scope) + " " + plural
	case PartMetadataAll:
		return "metadata " + singular
	}
	key, _ := scope.MetadataKey()
	return metadataField(key) + " " + singular
}
