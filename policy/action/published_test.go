package action

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestPublished names the requests that the vendors' own descriptions show, as `go run
// ./cmd/catalogue -examples` writes them: each is the operation that it is shown for, or one
// of several.
func TestPublished(t *testing.T) {
	c := shippedCatalogue(t)
	files, err := filepath.Glob("testdata/published/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, file := range files {
		for _, g := range readGolden(t, file) {
			total++
			got := outcome(c, &g.r)
			if len(g.want) != 1 || !slices.ContainsFunc(got, func(line string) bool { return strings.HasPrefix(line, g.want[0]+" ") }) {
				t.Errorf("%s: %s https://%s%s?%s\n got %s\nwant %s", g.where, g.r.Method, g.r.Host, g.r.Path, g.r.RawQuery, strings.Join(got, "\n     "), strings.Join(g.want, "\n     "))
			}
		}
	}
	if len(files) < 10 || total < 400 {
		t.Errorf("only %d requests of %d services", total, len(files))
	}
}
