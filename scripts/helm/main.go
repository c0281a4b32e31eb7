// Renders a chart by Helm's own engine, as `helm template` does, for tests and manifests.
//
//	helm-render CHART RELEASE NAMESPACE [KEY=VALUE…]
//
// Values are as those of `helm --set`. Definitions of the chart's directory crds are left out.
package main

import (
	"fmt"
	"os"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/releaseutil"
	"helm.sh/helm/v3/pkg/strvals"
)

// What the rendered cluster is, where a chart asks.
const kubernetes = "v1.34.0"

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "error: too few words\n  hint: helm-render CHART RELEASE NAMESPACE [KEY=VALUE…]")
		os.Exit(2)
	}
	text, err := render(os.Args[1], os.Args[2], os.Args[3], os.Args[4:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "error: "+err.Error())
		os.Exit(1)
	}
	fmt.Print(text)
}

func render(path, release, namespace string, settings []string) (string, error) {
	chart, err := loader.Load(path)
	if err != nil {
		return "", err
	}
	given := map[string]interface{}{}
	for _, setting := range settings {
		if err := strvals.ParseInto(setting, given); err != nil {
			return "", fmt.Errorf("%s: %w", setting, err)
		}
	}
	capabilities := chartutil.DefaultCapabilities.Copy()
	version, err := chartutil.ParseKubeVersion(kubernetes)
	if err != nil {
		return "", err
	}
	capabilities.KubeVersion = *version
	options := chartutil.ReleaseOptions{Name: release, Namespace: namespace, Revision: 1, IsInstall: true}
	// This also holds the values to the chart's schema.
	values, err := chartutil.ToRenderValues(chart, given, options, capabilities)
	if err != nil {
		return "", err
	}
	files, err := engine.Render(chart, values)
	if err != nil {
		return "", err
	}
	for name := range files {
		if strings.HasSuffix(name, ".txt") || strings.HasSuffix(name, ".tpl") {
			delete(files, name)
		}
	}
	return ordered(files, capabilities.APIVersions)
}

// ordered puts objects in the order in which Helm installs them.
func ordered(files map[string]string, versions chartutil.VersionSet) (string, error) {
	hooks, manifests, err := releaseutil.SortManifests(files, versions, releaseutil.InstallOrder)
	if err != nil {
		return "", err
	}
	if len(hooks) > 0 {
		return "", fmt.Errorf("hooks are not rendered: %s", hooks[0].Path)
	}
	var text strings.Builder
	for _, manifest := range manifests {
		text.WriteString("---\n" + strings.TrimSpace(manifest.Content) + "\n")
	}
	return text.String(), nil
}
