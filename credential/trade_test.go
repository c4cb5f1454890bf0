package credential

import (
	"encoding/base64"
	"strings"
	"testing"
)

// FuzzStatement shows that of a signed statement nothing is taken but a handle, and of
// one that holds another handle or a session token nothing at all.
func FuzzStatement(f *testing.F) {
	part := base64.RawURLEncoding.EncodeToString
	handle, _ := newHandle("ya29.")
	other, _ := newHandle("")
	token := NewSessionToken()
	f.Add(`{"kid":"`+handle+`"}`, `{"iss":"a"}`, "signature", true)
	f.Add(`{"kid":"`+handle+`"}`, `{"sub":"`+other+`"}`, "signature", false)
	f.Add(`{"kid":"`+handle+`"}`, `{"sub":"`+token+`"}`, "signature", false)
	f.Add(`{"kid":"`+handle+`"}`, `{}`, other, false)
	f.Add(`{"alg":"RS256"}`, `{"iss":"`+handle+`@chaperone.iam.gserviceaccount.com"}`, "signature", false)
	f.Add(`{"kid":"`+handle+`"}`, `{"iss":"`+handle+`@x","sub":"`+handle+`@x"}`, "signature", true)
	f.Add(`{"kid":"`+handle+`"}`, `{"iss":"`+other+`@x"}`, "signature", false)
	f.Add(`{"kid":"real"}`, `{}`, "signature", false)
	f.Add(`{"kid":1}`, `{}`, "", false)
	f.Fuzz(func(t *testing.T, head, claims, signature string, good bool) {
		text := part([]byte(head)) + "." + part([]byte(claims)) + "." + part([]byte(signature))
		got, ok := statedIn(text)
		if ok != (got != "") || ok && (!IsHandle(got) || !strings.Contains(head+claims, got[len(got)-payloadLen:])) {
			t.Fatalf("%q of %q %q", got, head, claims)
		}
		if rest := strings.ReplaceAll(claims, got, ""); ok && (find(rest) || find(signature) || findToken(rest)) {
			t.Fatalf("taken although there is more: %q %q", claims, signature)
		}
		if good && head == `{"kid":"`+handle+`"}` && claims == `{"iss":"a"}` && !ok {
			t.Fatalf("nothing is taken of %q", text)
		}
		for _, bad := range []string{text + ".more", "x" + text, part([]byte(head)), strings.TrimSuffix(text, "."+part([]byte(signature)))} {
			if _, ok := statedIn(bad); ok {
				t.Fatalf("taken of %q", bad)
			}
		}
	})
}
