package main

import (
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"chaperone/certs"
	"chaperone/cmd/chaperone/settings"
)

// Files by which clients trust the CA.
const (
	caFile     = "ca.pem"         // the CA alone, for variables that add to the roots
	bundleFile = "bundle.pem"     // the system's roots and the CA, for variables that replace them
	javaFile   = "truststore.p12" // the bundle for Java
	wgetFile   = "wgetrc"         // names the bundle to wget, which reads no variable
	wgetInside = "wgetrc-mounted" // the same for a container, where the folder is at mounted
	phpFile    = "chaperone.ini"  // names the bundle to PHP, whose curl reads no variable
)

// javaPassword opens the trust store, which holds nothing secret.
const javaPassword = "changeit"

// phpSettings take the bundle's path from the variable that is set beside them.
const phpSettings = "openssl.cafile=${SSL_CERT_FILE}\ncurl.cainfo=${SSL_CERT_FILE}\n"

func trustDir(s *settings.Settings) string { return filepath.Join(s.State, "trust") }

// writeTrust writes the trust files into dir.
func writeTrust(ca *certs.Authority, dir string) error {
	bundle, err := ca.Bundle()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return writeTrustFiles(dir, ca.PEM(), bundle, nil)
}

// writeTrustFiles writes the files that follow from the CA and the bundle, both in
// PEM. Settings of wget that were there before stay, in front.
func writeTrustFiles(dir string, ca, bundle, wget []byte) error {
	java, err := certs.TrustStore(bundle, javaPassword)
	if err != nil {
		return err
	}
	if len(wget) > 0 {
		wget = append(wget, '\n')
	}
	wget = fmt.Appendf(wget, "ca_certificate = %s\n", filepath.Join(dir, bundleFile))
	for name, content := range map[string][]byte{
		caFile: ca, bundleFile: bundle, javaFile: java, wgetFile: wget, wgetInside: fmt.Appendf(nil, "ca_certificate = %s/%s\n", mounted, bundleFile), phpFile: []byte(phpSettings), nodeFile: nodePreload, pythonFile: pythonPreload,
	} {
		if err := replace(filepath.Join(dir, name), content); err != nil {
			return err
		}
	}
	return nil
}

// replace writes a file whole: a reader sees the old content or the new.
func replace(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// privatePrefix begins the name of every private trust folder.
const privatePrefix = "chaperone-trust-"

// privateTrust makes trust files in a new folder of mode 0700, from those of dir and
// from the roots that the caller's own variables name, so that a company's stay
// trusted. The caller removes the folder; what a run that was killed left behind is
// removed first.
func (a *app) privateTrust(dir string) (*os.File, error) {
	a.sweepTrust()
	name, err := os.MkdirTemp("", privatePrefix+"*")
	if err != nil {
		return nil, fmt.Errorf("making trust folder: %w", err)
	}
	folder, err := hold(name)
	if err == nil {
		err = a.copyTrust(dir, name)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(name))
	}
	return folder, nil
}

// sweepTrust removes the private trust folders of runs that were killed. A run holds
// its folder's lock for as long as it lives; one that is being made has no lock yet,
// so that young folders are left alone.
func (a *app) sweepTrust() {
	const young = time.Minute
	list, err := filepath.Glob(filepath.Join(os.TempDir(), privatePrefix+"*"))
	if err != nil {
		return
	}
	for _, name := range list {
		info, err := os.Lstat(name)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < young {
			continue
		}
		if f, err := hold(name); err == nil { // another's folder, or one in use, cannot be held
			os.RemoveAll(name) // it is tried again next time
			f.Close()
		}
	}
}

func (a *app) copyTrust(from, to string) error {
	ca, bundle := newRoots(), newRoots()
	for name, r := range map[string]*roots{caFile: ca, bundleFile: bundle} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return fmt.Errorf("reading trust files: %w", err)
		}
		r.add(b)
	}
	for _, name := range addsToRoots {
		own, _ := a.variable(name)
		ca.addFile(own)
		bundle.addFile(own)
	}
	for _, name := range replacesRoots {
		own, _ := a.variable(name)
		bundle.addFile(own)
	}
	dirs, _ := a.variable("SSL_CERT_DIR")
	for _, dir := range filepath.SplitList(dirs) {
		bundle.addFolder(dir)
	}
	if err := writeTrustFiles(to, ca.pem, bundle.pem, a.ownWget()); err != nil {
		return fmt.Errorf("writing trust files: %w", err)
	}
	return nil
}

// ownWget are the settings that wget would read, were WGETRC not set: it reads one
// file of the user's alone.
func (a *app) ownWget() []byte {
	path, ok := a.variable("WGETRC")
	if !ok {
		home, _ := a.variable("HOME")
		path = filepath.Join(home, ".wgetrc")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return b
}

// hold opens a folder and takes its lock, which ends when the file is closed or the
// process ends.
func hold(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", dir, err), f.Close())
	}
	return f, nil
}

// roots are certificates in PEM, each once.
type roots struct {
	pem  []byte
	seen map[string]bool
}

func newRoots() *roots { return &roots{seen: map[string]bool{}} }

func (r *roots) add(own []byte) {
	for {
		var block *pem.Block
		if block, own = pem.Decode(own); block == nil {
			return
		}
		if block.Type == "CERTIFICATE" && !r.seen[string(block.Bytes)] {
			r.seen[string(block.Bytes)] = true
			r.pem = append(r.pem, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
		}
	}
}

// addFile adds what a variable names. A file that cannot be read would not have been
// of use to the client either.
func (r *roots) addFile(name string) {
	if own, err := os.ReadFile(name); err == nil {
		r.add(own)
	}
}

func (r *roots) addFolder(dir string) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range list {
		r.addFile(filepath.Join(dir, e.Name()))
	}
}
