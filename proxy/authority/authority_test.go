package authority

import (
	"errors"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		in, host string
		port     int
	}{
		{"api.github.com", "api.github.com", 443},
		{"API.GitHub.com:443", "api.github.com", 443},
		{"api.github.com.", "api.github.com", 443},
		{"api.github.com.:8443", "api.github.com", 8443},
		{"bücher.example", "xn--bcher-kva.example", 443},
		{"ＧＩＴＨＵＢ．com", "github.com", 443},
		{"github。com", "github.com", 443},
		{"127.0.0.1:80", "127.0.0.1", 80},
		{"[::1]:80", "::1", 80},
		{"[2001:DB8::0:1]", "2001:db8::1", 443},
		{"_dmarc.example.com", "_dmarc.example.com", 443},
		{"_DMARC.Example.com", "_dmarc.example.com", 443},
		{"R1---SN-x.example.com", "r1---sn-x.example.com", 443},
		{"127.0.0.1.", "127.0.0.1", 443},
		{"localhost", "localhost", 443},
	} {
		host, port, err := Parse(tc.in, 443)
		if err != nil || host != tc.host || port != tc.port {
			t.Errorf("Parse(%q): got %q, %d, %v; want %q, %d", tc.in, host, port, err, tc.host, tc.port)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"empty": "", "userinfo": "good@evil.example", "two ports": "a.example:1:2", "no port": "a.example:",
		"port 0": "a.example:0", "port too large": "a.example:65536", "signed port": "a.example:+1", "leading zero": "a.example:080",
		"octal": "0177.0.0.1", "short": "127.1", "decimal": "2130706433", "hexadecimal": "0x7f.0.0.1", "hexadecimal number": "0x7f000001", "leading zeros": "127.0.0.01",
		"zone": "[fe80::1%25eth0]:80", "unclosed": "[::1", "bare v6": "::1", "v4 in brackets": "[127.0.0.1]", "v4 as v6": "[::ffff:127.0.0.1]", "v4 as hexadecimal v6": "[::ffff:7f00:1]",
		"two dots": "a..example", "only a dot": ".", "two trailing dots": "a.example..", "leading dot": ".a.example", "wildcard": "*.example", "space": "a b.example",
		"slash": "a/b", "percent": "a%2eexample", "NUL": "a\x00b", "leading hyphen": "-a.example", "long label": strings.Repeat("a", 64) + ".example", "long name": strings.Repeat("a.", 127) + "com", "too long": strings.Repeat("ü", 600), "bad punycode": "xn--a.example\xff", "underscore in unicode": "ü_.example",
	} {
		if host, port, err := Parse(in, 443); !errors.Is(err, ErrAuthority) {
			t.Errorf("%s: Parse(%q): got %q, %d, %v", name, in, host, port, err)
		}
	}
	if _, _, err := Parse("a.example", 0); err == nil {
		t.Error("a missing port passed where it must be given")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"a.example:443", "[::1]:80", "BÜCHER.example.", "0x7f.1", "xn--bcher-kva.example"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, port, err := Parse(s, 443)
		if err != nil {
			return
		}
		again, p, err := Parse(Format(host, port, 443), 443)
		if err != nil || again != host || p != port {
			t.Fatalf("Parse(%q) = %q, %d, and again %q, %d, %v", s, host, port, again, p, err)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Parse("api.github.com:443", 443); err != nil {
			b.Fatal(err)
		}
	}
}
