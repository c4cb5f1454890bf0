// Command dashboard reads dashboards as the schema that Grafana publishes has them,
// strictly: what is missing, unknown or of another type is an error.
package main

import (
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

func main() {
	types := cog.NewRuntime()
	types.RegisterDataqueryVariant(prometheus.VariantConfig())
	types.RegisterPanelcfgVariant(timeseries.VariantConfig())
	types.RegisterPanelcfgVariant(stat.VariantConfig())
	for _, name := range os.Args[1:] {
		b, err := os.ReadFile(name)
		var d dashboard.Dashboard
		if err == nil {
			err = d.UnmarshalJSONStrict(b)
		}
		if faults, ok := err.(cog.BuildErrors); err == nil || ok && len(faults) == 0 {
			err = d.Validate()
		}
		if faults, ok := err.(cog.BuildErrors); ok && len(faults) == 0 {
			err = nil // as the package says that there are none
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			os.Exit(1)
		}
		fmt.Println(name, *d.Title, len(d.Panels), "panels")
	}
}
