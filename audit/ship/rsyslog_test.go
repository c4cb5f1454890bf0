package ship

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"chaperone/audit"
)

// TestRsyslog sends the log to a real rsyslogd over TLS, where one is installed with
// its TLS driver.
func TestRsyslog(t *testing.T) {
	program, err := exec.LookPath("rsyslogd")
	if err != nil {
		t.Skip("rsyslogd is not installed")
	}
	c, s := newCollector(t), newScribe(t) // the collector for its certificate
	dir := t.TempDir()
	pair := c.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{
		"cert.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}),
		"key.pem":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	free.Close()
	files["rsyslog.conf"] = fmt.Appendf(nil, `global(workDirectory=%[1]q maxMessageSize="64k" defaultNetstreamDriver="gtls" defaultNetstreamDriverCAFile="%[1]s/cert.pem" defaultNetstreamDriverCertFile="%[1]s/cert.pem" defaultNetstreamDriverKeyFile="%[1]s/key.pem")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="anon")
input(type="imtcp" address="127.0.0.1" port=%[2]q)
template(name="line" type="string" string="%%app-name%% %%msgid%% %%syslogfacility%% %%msg%%\n")
action(type="omfile" file="%[1]s/out" template="line")
`, dir, port)
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "-n", "-f", filepath.Join(dir, "rsyslog.conf"), "-i", filepath.Join(dir, "pid"))
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	}()
	conf := c.options().TLS
	conf.ServerName = "example.com"
	until(t, "rsyslogd", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	k := s.sink(Options{Target: NewSyslog(SyslogOptions{Address: address, TLS: conf, Hostname: "host.example.com", PID: 1})})
	s.write(100)
	want := s.lines()
	got := map[uint64]string{}
	until(t, "all lines at rsyslogd", func() bool {
		got = arrived(t, filepath.Join(dir, "out"))
		return len(got) >= len(want)
	})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := k.Close(ctx); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	same(t, got, want)
}

// arrived reads what rsyslogd wrote down.
func arrived(t *testing.T, name string) map[uint64]string {
	got := map[uint64]string{}
	f, err := os.Open(name)
	if err != nil {
		return got
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		parts := strings.SplitN(lines.Text(), " ", 4)
		if len(parts) < 4 || parts[0] != "chaperone" || parts[2] != "13" {
			continue // rsyslogd's own
		}
		line := strings.TrimLeft(parts[3], " ")
		if n, err := audit.Number([]byte(line)); err == nil {
			got[n] = line
		}
	}
	return got
}
