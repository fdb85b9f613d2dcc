package render

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Images are the patterns of the images that a CartStorage may name for its sidecars. No patterns allow any image. A
// pattern is
//
//   - an image with tag or digest, "ghcr.io/acme/sidecar:1.2": that one image;
//   - an image without, "ghcr.io/acme/sidecar": every tag and digest of it;
//   - a beginning that ends in / or *, "ghcr.io/acme/" or "ghcr.io/acme/sidecar:1.*": all images that begin so.
//
// Names without a registry are those of Docker Hub, as container runtimes read them.
type Images []string

// ParseImages returns the patterns in full. The error names every text that is not a pattern.
func ParseImages(patterns []string) (Images, error) {
	var images Images
	var errs []error
	for _, p := range patterns {
		switch star := strings.Index(p, "*"); {
		case p == "" || strings.ContainsAny(p, " \t\n,"):
			errs = append(errs, fmt.Errorf("%q is no image: write for example ghcr.io/acme/sidecar", p))
		case star >= 0 && star != len(p)-1:
			errs = append(errs, fmt.Errorf("%q: * stands for the rest of a name, and so at the end only", p))
		case star >= 0 && !strings.Contains(p, "/"):
			// "ghcr.io*" would allow ghcr.io.example.com.
			errs = append(errs, fmt.Errorf("%q: write the registry in full before *, as in ghcr.io/*", p))
		default:
			images = append(images, qualified(p))
		}
	}
	return images, errors.Join(errs...)
}

// With returns the patterns with image added, if there are any patterns at all.
func (p Images) With(image string) Images {
	if len(p) == 0 || image == "" {
		return p
	}
	return append(slices.Clone(p), qualified(image))
}

// Check returns an error if image is not allowed. The error says which images are. An empty image, which stands for the
// operator's, is allowed.
func (p Images) Check(image string) error {
	if len(p) == 0 || image == "" {
		return nil
	}
	name := qualified(image)
	if slices.ContainsFunc(p, func(pattern string) bool { return matches(pattern, name) }) {
		return nil
	}
	return fmt.Errorf("spec.sidecar.image: %s is not on the operator's list of sidecar images: remove it, or name one that is allowed (--sidecar-image-allow)", image)
}

func matches(pattern, image string) bool {
	if beginning, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(image, beginning)
	}
	if strings.HasSuffix(pattern, "/") {
		return strings.HasPrefix(image, pattern)
	}
	return image == pattern || repository(pattern) == pattern && repository(image) == pattern
}

// repository returns image without tag and digest.
func repository(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if colon := strings.LastIndex(image, ":"); colon > strings.LastIndex(image, "/") {
		return image[:colon]
	}
	return image
}

// qualified returns image with its registry.
func qualified(image string) string {
	first, rest, ok := strings.Cut(image, "/")
	switch {
	case !ok:
		return "docker.io/library/" + image
	case first == "index.docker.io":
		return "docker.io/" + rest
	case strings.ContainsAny(first, ".:") || first == "localhost":
		return image
	}
	return "docker.io/" + image
}
