package render

import (
	"strings"
	"testing"
)

func TestImages(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("a", 64)
	for _, r := range []struct {
		pattern, image string
		allowed        bool
	}{
		{"ghcr.io/acme/sidecar", "ghcr.io/acme/sidecar", true},
		{"ghcr.io/acme/sidecar", "ghcr.io/acme/sidecar:1.2", true},
		{"ghcr.io/acme/sidecar", "ghcr.io/acme/sidecar:1.2" + digest, true},
		{"ghcr.io/acme/sidecar", "ghcr.io/acme/sidecar" + digest, true},
		{"ghcr.io/acme/sidecar", "ghcr.io/acme/sidecar-evil:1", false},
		{"ghcr.io/acme/sidecar", "ghcr.io/acme/sidecar/evil:1", false},
		{"ghcr.io/acme/sidecar", "ghcr.io.evil.org/acme/sidecar", false},
		{"ghcr.io/acme/sidecar:1.2", "ghcr.io/acme/sidecar:1.2", true},
		{"ghcr.io/acme/sidecar:1.2", "ghcr.io/acme/sidecar:1.3", false},
		{"ghcr.io/acme/sidecar:1.2", "ghcr.io/acme/sidecar", false},
		// The digest wins over the tag, and may be that of any image.
		{"ghcr.io/acme/sidecar:1.2", "ghcr.io/acme/sidecar:1.2" + digest, false},
		{"ghcr.io/acme/sidecar" + digest, "ghcr.io/acme/sidecar" + digest, true},
		{"ghcr.io/acme/sidecar" + digest, "ghcr.io/acme/sidecar:1.2", false},
		{"ghcr.io/acme/", "ghcr.io/acme/any:1", true},
		{"ghcr.io/acme/", "ghcr.io/acmeevil/any:1", false},
		{"ghcr.io/acme/sidecar:1.*", "ghcr.io/acme/sidecar:1.9", true},
		{"ghcr.io/acme/sidecar:1.*", "ghcr.io/acme/sidecar:2.0", false},
		{"registry.shop:5000/sidecar", "registry.shop:5000/sidecar:1", true},
		{"registry.shop:5000/sidecar", "registry.shop:5001/sidecar:1", false},
		{"localhost/sidecar", "localhost/sidecar:1", true},
		{"sidecart/sidecar", "docker.io/sidecart/sidecar:1", true},
		{"docker.io/sidecart/sidecar", "sidecart/sidecar:1", true},
		{"index.docker.io/sidecart/sidecar", "sidecart/sidecar:1", true},
		{"sidecar", "sidecar:1", true},
		{"sidecar", "library/sidecar:1", true},
		{"sidecar", "evil/sidecar:1", false},
		{"ghcr.io/acme/sidecar", "", true}, // the operator's own
	} {
		images, err := ParseImages([]string{"quay.io/other/sidecar:1", r.pattern})
		if err != nil {
			t.Errorf("%s: %v", r.pattern, err)
			continue
		}
		if err := images.Check(r.image); (err == nil) != r.allowed {
			t.Errorf("pattern %s, image %s: error is %v, want allowed to be %t", r.pattern, r.image, err, r.allowed)
		} else if err != nil && !strings.Contains(err.Error(), "spec.sidecar.image: "+r.image+" is not on the operator's list") {
			t.Errorf("error is %v, want one that names field and image", err)
		}
	}
}

// Without a list every image is allowed; with one, the operator's own is.
func TestImagesOfTheOperator(t *testing.T) {
	if err := (Images)(nil).With("sidecart/sidecar:1").Check("evil/sidecar:1"); err != nil {
		t.Errorf("without a list: %v", err)
	}
	images, err := ParseImages([]string{"ghcr.io/acme/"})
	if err != nil {
		t.Fatal(err)
	}
	images = images.With("sidecart/sidecar:1")
	if err := images.Check("docker.io/sidecart/sidecar:1"); err != nil {
		t.Errorf("the operator's own image is refused: %v", err)
	}
	if images.Check("sidecart/sidecar:2") == nil {
		t.Error("another tag of the operator's own image is allowed")
	}
}

func TestImagesRefusesPatterns(t *testing.T) {
	for pattern, want := range map[string]string{
		"":                "is no image",
		"a b":             "is no image",
		"ghcr.io*":        "write the registry in full before *",
		"*":               "write the registry in full before *",
		"ghcr.io/*/a":     "at the end only",
		"ghcr.io/acme/**": "at the end only",
	} {
		if _, err := ParseImages([]string{pattern}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error is %v, want %q", pattern, err, want)
		}
	}
}
