package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"chaperone/cmd/chaperone/echo"
)

func TestJudge(t *testing.T) {
	asked := echo.Request{Method: "GET", Host: "a.example", Path: "/x", Protocol: "HTTP/1.1"}
	good := echo.Visit{Target: "a.example:443", Tunnel: true, User: byItself, Password: echo.Sent, Trusted: true, Requests: []echo.Request{asked}}
	with := func(change func(*echo.Visit)) []echo.Visit {
		v := good
		change(&v)
		return []echo.Visit{v}
	}
	const well = "exit code 0"
	for name, tc := range map[string]struct {
		program     string
		visits      []echo.Visit
		ended       string
		level, want string
		mend        string
	}{
		"well":             {"curl", []echo.Visit{good}, well, "ok", "curl comes to the proxy, sends its password at once and trusts the CA: GET https://a.example/x by HTTP/1.1, 1 in all", ""},
		"past the proxy":   {"python3.11", nil, "exit status 1", "broken", "never came to the proxy (exit status 1)", "pysocks"},
		"chromium":         {"chromium", nil, well, "broken", "never came", "--proxy-server=$CHAPERONE_LOCAL_PROXY"},
		"asked in vain":    {"tool", with(func(v *echo.Visit) { *v = echo.Visit{Password: echo.Asked} }), well, "broken", "sends no password", "$CHAPERONE_LOCAL_PROXY"},
		"another password": {"npm", with(func(v *echo.Visit) { *v = echo.Visit{Password: echo.Wrong} }), well, "broken", "another proxy password", "look into ~/.npmrc"},
		"after a 407":      {"git", with(func(v *echo.Visit) { v.Password = echo.AfterAsked }), well, "ok", "after a first 407", ""},
		"no trust": {"java", with(func(v *echo.Visit) {
			v.Trusted, v.Requests, v.Fault = false, nil, "remote error: tls: unknown certificate"
		}), well, "broken", `ended with "unknown certificate"`, "trustStore"},
		"hangs up":      {"tool", with(func(v *echo.Visit) { v.Trusted, v.Requests, v.Fault = false, nil, "EOF" }), well, "broken", "the client hung up", "$SSL_CERT_FILE"},
		"by the door":   {"java", with(func(v *echo.Visit) { v.User = byListener }), well, "note", "goes by the local listener", "chaperone run"},
		"in clear":      {"curl", with(func(v *echo.Visit) { v.Tunnel = false }), well, "note", "in clear", "https"},
		"only h2":       {"tool", with(func(v *echo.Visit) { v.Protocols = []string{"h2"} }), well, "note", "HTTP/2 alone", ""},
		"asked nothing": {"tool", with(func(v *echo.Visit) { v.Requests = nil }), well, "broken", "most likely does not trust the CA", "$SSL_CERT_FILE"},
		"a daemon's":    {"docker", nil, well, "broken", "never came", "its daemon makes the requests"},
		"environment":   {"env python3", nil, well, "broken", "env python3 never came", "lost the environment"},
		"and what then": {"env python3", nil, well, "broken", "env python3 never came", "pysocks"},
		"the clock": {"curl", with(func(v *echo.Visit) {
			v.Trusted, v.Requests, v.Fault = false, nil, "remote error: tls: expired certificate"
		}), well, "broken", "expired certificate", "set the clock"},
		"clear alone": {"curl", with(func(v *echo.Visit) { v.Tunnel = false }), well, "ok", "whether it trusts the CA is not known", ""},
		"ended badly": {"gh", []echo.Visit{good}, "exit status 4", "note", "ended with exit status 4", "doctor's own"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, x := range judge(tc.program, tc.visits, tc.ended, []string{"~/.npmrc"}) {
				if x.Level == tc.level && strings.Contains(x.What, tc.want) && strings.Contains(x.Mend, tc.mend) {
					return
				}
			}
			t.Errorf("got %+v", judge(tc.program, tc.visits, tc.ended, nil))
		})
	}
}

// TestProgramOf finds the client within what starts it.
func TestProgramOf(t *testing.T) {
	for want, command := range map[string][]string{
		"git":            {"/usr/bin/git", "fetch"},
		"env python3":    {"env", "-i", "PATH=/bin", "/usr/bin/python3", "-c", "x"},
		"wget":           {"sh", "-c", "cd /tmp; exec wget -q x"},
		"node20":         {"bash", "-ec", "(/opt/node20 x.js)"},
		"sh":             {"sh", "-c", "./own-tool"},
		"my-curl":        {"my-curl", "https://curl.se"},
		"timeout docker": {"timeout", "9", "docker", "pull", "x"},
	} {
		if got := programOf(command); got != want {
			t.Errorf("%q: got %s, want %s", command, got, want)
		}
	}
	seen := map[string]bool{}
	for _, m := range mends {
		for name := range strings.FieldsSeq(m.programs) {
			if seen[name] {
				t.Errorf("%s stands twice", name)
			}
			seen[name] = true
		}
	}
}

// TestOwnSettings are named where they speak of a proxy, and only there.
func TestOwnSettings(t *testing.T) {
	home := t.TempDir()
	for name, text := range map[string]string{".npmrc": "https-proxy=http://me:secret@a\n", ".curlrc": "# proxy = x\nsilent\n", ".wgetrc": "use_proxy = off\n"} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a := &app{env: []string{"HOME=" + home}}
	if got := strings.Join(a.ownSettings(), " "); got != "~/.wgetrc ~/.npmrc" {
		t.Errorf("got %s", got)
	}
}

// TestPythonPreload sees what the file tells libraries, and that it hides no other
// of its name.
func TestPythonPreload(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is missing")
	}
	ours, theirs := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		filepath.Join(ours, pythonFile):     string(pythonPreload),
		filepath.Join(theirs, pythonFile):   "import sys\nsys.stdout.write('theirs ')\n",
		filepath.Join(theirs, "stripe.py"):  "ca_bundle_path = 'own'\n",
		filepath.Join(theirs, "boto.py"):    "import configparser\nconfig = configparser.ConfigParser()\n",
		filepath.Join(theirs, "certifi.py"): "def where():\n    return 'own'\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for proxy, want := range map[string]string{"http://a": "theirs bundle bundle bundle", "": "theirs own own none"} {
		c := exec.Command(python, "-c", "import stripe, certifi, boto; print(stripe.ca_bundle_path, certifi.where(), boto.config.get('Boto', 'ca_certificates_file', fallback='none'))")
		c.Env = []string{"PYTHONPATH=" + (surroundings{trust: ours, python: theirs}).pythonPath(), "SSL_CERT_FILE=bundle", "HTTPS_PROXY=" + proxy, "PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
		out, err := c.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("with proxy %q: %v %q, want %q", proxy, err, got, want)
		}
	}
}

// TestNodeOptions keep what was there, and a path with a space whole.
func TestNodeOptions(t *testing.T) {
	s := surroundings{trust: `/a b/"c`, node: "--max-old-space-size=99"}
	if got := s.nodeOptions(); got != `--max-old-space-size=99 --require "/a b/\"c/chaperone.cjs"` {
		t.Errorf("got %s", got)
	}
}
