package opa

import (
	"encoding/json"
	"errors"
	"testing"
	"testing/fstest"
)

const maskPolicy = `package chaperone

decision := {"result": "deny"}
`

func loadMask(t *testing.T, text string) (*Mask, error) {
	t.Helper()
	return LoadMask(t.Context(), fstest.MapFS{
		"chaperone/main.rego": {Data: []byte(maskPolicy)}, "chaperone/log/mask.rego": {Data: []byte("package chaperone.log\n\n" + text)},
	})
}

func TestMask(t *testing.T) {
	m, err := loadMask(t, `mask contains "/human/email"

mask contains {"op": "upsert", "path": "/request/path", "value": "…"} if input.action.service == "slack"

mask contains "/input/credential/handle"

mask contains "/nowhere/at/all"
`)
	if err != nil {
		t.Fatal(err)
	}
	event := `{"id":"x","human":{"email":"a@b.c","sub":"s"},"action":{"service":"slack"},"request":{"path":"/secret"},"credential":{"handle":"h"}}`
	b, err := m.Apply(t.Context(), []byte(event))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"action":{"service":"slack"},"credential":{},"human":{"sub":"s"},"id":"x","masked":["/credential/handle","/human/email","/request/path"],"request":{"path":"…"}}`
	var got, wanted map[string]any
	if json.Unmarshal(b, &got) != nil || json.Unmarshal([]byte(want), &wanted) != nil || len(got["masked"].([]any)) != 3 {
		t.Fatalf("got %s", b)
	}
	delete(got, "masked")
	delete(wanted, "masked")
	x, _ := json.Marshal(got)
	y, _ := json.Marshal(wanted)
	if string(x) != string(y) {
		t.Errorf("got %s, want %s", x, y)
	}
	plain := `{"id":"y"}`
	if b, err := m.Apply(t.Context(), []byte(plain)); err != nil || string(b) != plain {
		t.Errorf("%s, %v", b, err)
	}
}

// TestMaskRefuses lets nothing pass that a mask could not say anything about.
func TestMaskRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no path":   `mask contains "human"`,
		"odd op":    `mask contains {"op": "burn", "path": "/human"}`,
		"number":    `mask contains 3`,
		"no set":    `mask := true`,
		"undefined": `mask := {"/a"} if input.nothing`,
		"conflict": `mask := {"/a"} if input.id

mask := {"/b"} if input.id`,
	} {
		m, err := loadMask(t, text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if b, err := m.Apply(t.Context(), []byte(`{"id":"x","human":{}}`)); !errors.Is(err, ErrMask) {
			t.Errorf("%s: %s, %v", name, b, err)
		}
	}
	if _, err := loadMask(t, `mask contains input.human.`); err == nil {
		t.Error("a mask that does not parse was loaded")
	}
	m, err := LoadMask(t.Context(), fstest.MapFS{"chaperone/main.rego": {Data: []byte(maskPolicy)}})
	if err != nil || m != nil {
		t.Errorf("no mask: %v, %v", m, err)
	}
	if b, err := m.Apply(t.Context(), []byte("{}")); err != nil || string(b) != "{}" {
		t.Errorf("%s, %v", b, err)
	}
}
