package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"chaperone/certs"
	"chaperone/cmd/chaperone/problem"
	"chaperone/cmd/chaperone/settings"
)

func (a *app) caVerbs() *cobra.Command {
	return group("ca", "The certificate that clients must trust", a.caPath(), a.caExport(), a.caInstall())
}

// caCertificate is where the CA's certificate is.
func caCertificate(s *settings.Settings) string {
	if s.CA.Cert != "" {
		return s.CA.Cert
	}
	return filepath.Join(s.State, certs.CertFile)
}

// readCA returns the path of the CA's certificate and its content.
func (a *app) readCA() (string, []byte, error) {
	s, err := a.settings()
	if err != nil {
		return "", nil, err
	}
	path := caCertificate(s)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, problem.Failure(fmt.Errorf("reading CA certificate: there is none at %s", path), "it is made when `chaperone serve` first runs")
	}
	if err != nil {
		return "", nil, fmt.Errorf("reading CA certificate: %w", err)
	}
	return path, b, nil
}

func (a *app) caPath() *cobra.Command {
	return &cobra.Command{
		Use: "path", Short: "Print where the CA certificate is", Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			path, _, err := a.readCA()
			if err != nil {
				return err
			}
			return a.print(map[string]string{"path": path}, func(w io.Writer) { fmt.Fprintln(w, path) })
		},
	}
}

func (a *app) caExport() *cobra.Command {
	return &cobra.Command{
		Use: "export", Short: "Print the CA certificate in PEM; its key stays in the state directory, and sealed in a store that replicas share", Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			_, b, err := a.readCA()
			if err != nil {
				return err
			}
			return a.print(map[string]string{"certificate": string(b)}, func(w io.Writer) { w.Write(b) })
		},
	}
}

func (a *app) caInstall() *cobra.Command {
	return &cobra.Command{
		Use: "install", Short: "Print the commands that make this machine trust the CA, and those that undo it", Args: noArguments,
		Long: `Print the commands that make this machine trust the CA, and those that undo it. They
are not run: they change whom the whole machine trusts. chaperone run does without.`,
		RunE: func(*cobra.Command, []string) error {
			path, _, err := a.readCA()
			if err != nil {
				return err
			}
			do, undo := installCommands(runtime.GOOS, path)
			return a.print(map[string][]string{"install": do, "undo": undo}, func(w io.Writer) {
				fmt.Fprintln(w, "to trust it:")
				for _, line := range do {
					fmt.Fprintln(w, "  "+line)
				}
				fmt.Fprintln(w, "to undo that:")
				for _, line := range undo {
					fmt.Fprintln(w, "  "+line)
				}
			})
		},
	}
}

func installCommands(system, path string) (do, undo []string) {
	quoted := shellQuote(path)
	if system == "darwin" {
		return []string{"sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain " + quoted},
			[]string{"sudo security remove-trusted-cert -d " + quoted}
	}
	return []string{"sudo install -m 644 " + quoted + " /usr/local/share/ca-certificates/chaperone.crt", "sudo update-ca-certificates"},
		[]string{"sudo rm /usr/local/share/ca-certificates/chaperone.crt", "sudo update-ca-certificates --fresh"}
}
