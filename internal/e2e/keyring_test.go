package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"chaperone/internal/testkit"
)

// ringScript starts the program twice in the session of a desktop user with a keyring.
const ringScript = `printf pw | gnome-keyring-daemon --unlock --components=secrets >/dev/null
run() {
  "$BIN" serve >"$1" 2>&1 &
  p=$!
  n=0; until grep -q 'clients trust it' "$1" || [ $n = 600 ]; do sleep 0.1; n=$((n+1)); done
}
run first; echo ghp_x | "$BIN" credential add gh --service github --owner org --from-stdin
kill -INT $p; wait $p
run second; "$BIN" credential list; kill -INT $p; wait $p
cat first second`

// TestKeyring has the installation key in a real keyring, that of GNOME, where one is
// installed (gnome-keyring, dbus).
func TestKeyring(t *testing.T) {
	for _, program := range []string{"dbus-run-session", "gnome-keyring-daemon"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	bin, err := testkit.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"config.yaml": "listen: 127.0.0.1:0\nkey: {keyring: installation-key}\nupstream: {}\n", "in.sh": ringScript} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), "dbus-run-session", "--", "sh", "in.sh")
	c.Dir, c.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "BIN=" + bin, "HOME=" + dir, "XDG_DATA_HOME=" + dir, "XDG_RUNTIME_DIR=" + filepath.Join(dir, "run")}
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "credential gh for github is sealed") || !strings.Contains(string(out), "gh          github   org") {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "state", "key")); err == nil {
		t.Error("the key is in the state directory as well")
	}
}
