package main

import (
	"bytes"
	"debug/buildinfo"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// authoritiesModule is where the certificate authorities of the images come from.
const authoritiesModule = "golang.org/x/crypto/x509roots/fallback"

// billOfMaterials says as CycloneDX JSON what the image is made of: the modules that the linker recorded in the
// program, Go's standard library, and the certificate authorities.
func billOfMaterials(p program, version, platform string, info *debug.BuildInfo, created time.Time) ([]byte, error) {
	main := module(cdx.ComponentTypeApplication, info.Main.Path, version, "")
	main.Name = info.Main.Path + strings.TrimPrefix(p.pkg, ".")
	main.PackageURL += "#" + strings.TrimPrefix(p.pkg, "./")
	main.BOMRef = main.PackageURL
	main.Description = p.description
	main.Properties = &[]cdx.Property{{Name: "platform", Value: platform}}

	components := []cdx.Component{
		module(cdx.ComponentTypeLibrary, "std", strings.TrimPrefix(info.GoVersion, "go"), ""),
	}
	for _, dep := range info.Deps {
		if dep.Replace != nil {
			dep = dep.Replace
		}
		components = append(components, module(cdx.ComponentTypeLibrary, dep.Path, dep.Version, dep.Sum))
	}
	own, _ := debug.ReadBuildInfo() // false only for what was built without modules
	for _, dep := range own.Deps {
		if dep.Path == authoritiesModule {
			components = append(components, module(cdx.ComponentTypeData, dep.Path, dep.Version, dep.Sum))
		}
	}
	slices.SortFunc(components, func(a, b cdx.Component) int { return strings.Compare(a.BOMRef, b.BOMRef) })

	var refs []string
	for _, c := range components {
		refs = append(refs, c.BOMRef)
	}
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{Timestamp: created.Format(time.RFC3339), Component: &main}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: main.BOMRef, Dependencies: &refs}}
	var b bytes.Buffer
	// Scanners read 1.6 and are slow to learn newer ones; nothing here needs them.
	err := cdx.NewBOMEncoder(&b, cdx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false).EncodeVersion(bom, cdx.SpecVersion1_6)
	return b.Bytes(), err
}

// module is a component for a Go module. Its package URL has the path in lower case, as that specification wants.
func module(kind cdx.ComponentType, path, version, sum string) cdx.Component {
	url := "pkg:golang/" + strings.ToLower(path) + "@" + strings.ReplaceAll(version, "+", "%2B")
	c := cdx.Component{Type: kind, BOMRef: url, Name: path, Version: version, PackageURL: url}
	if sum != "" {
		// This is not one of the hashes, since it is over the names and hashes of all files of the module.
		c.Properties = &[]cdx.Property{{Name: "go.sum", Value: sum}}
	}
	return c
}

// readBuildInfo reads what the linker recorded in the program.
func readBuildInfo(binary string) (*debug.BuildInfo, error) { return buildinfo.ReadFile(binary) }
