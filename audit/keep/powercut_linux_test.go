package keep

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"chaperone/audit"
	"chaperone/audit/index"
	"chaperone/audit/proof"
)

// disk is a file system of its own, which can lose its power.
type disk struct {
	t     *testing.T
	image string
	dir   string
	up    bool
}

// mountDisk makes and mounts a disk, or skips the test where that is not to be had: it
// takes root, a loop device and mkfs.ext4.
func mountDisk(t *testing.T) *disk {
	t.Helper()
	d := &disk{t: t, image: filepath.Join(t.TempDir(), "image"), dir: filepath.Join(t.TempDir(), "disk")}
	if err := errors.Join(os.WriteFile(d.image, nil, 0o600), os.Truncate(d.image, 64<<20), os.Mkdir(d.dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", d.image).CombinedOutput(); err != nil {
		t.Skipf("no file system can be made: %v %s", err, out)
	}
	if out, err := d.mount(); err != nil {
		t.Skipf("it cannot be mounted: %v %s", err, out)
	}
	t.Cleanup(func() {
		if d.up {
			d.umount()
		}
	})
	return d
}

func (d *disk) mount() (string, error) {
	out, err := exec.Command("mount", "-o", "loop", d.image, d.dir).CombinedOutput()
	d.up = err == nil
	return string(out), err
}

func (d *disk) umount() {
	d.t.Helper()
	if out, err := exec.Command("umount", d.dir).CombinedOutput(); err != nil {
		d.t.Fatalf("umount: %v %s", err, out)
	}
	d.up = false
}

// EXT4_IOC_SHUTDOWN of linux/fs/ext4/ext4.h, with EXT4_GOING_FLAGS_NOLOGFLUSH: from that
// moment on nothing reaches the device any more, neither data nor journal.
const (
	ext4Shutdown = 0x8004587d
	noLogFlush   = 2
)

// cut cuts the power.
func (d *disk) cut() error {
	f, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := uint32(noLogFlush)
	if _, _, no := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), ext4Shutdown, uintptr(unsafe.Pointer(&flags))); no != 0 {
		return fmt.Errorf("this kernel cannot shut a file system down: %w", no)
	}
	return nil
}

const diskVariable = "CHAPERONE_TEST_DISK"

// syncIn is the log's promise in this test: so much later a line is on disk.
const syncIn = 100 * time.Millisecond

// TestPowerCutUnderLoad cuts a disk's power under a process that writes, signs, indexes
// and packs, three times: the log refuses at once, the next start goes on with a chain
// that holds, what was committed longer ago than log.sync is in it, and it is no tampering.
func TestPowerCutUnderLoad(t *testing.T) {
	if path := os.Getenv(diskVariable); path != "" {
		writeOn(path)
	}
	d := mountDisk(t)
	path := filepath.Join(d.dir, "decisions.jsonl")
	told := map[string]time.Time{}
	for range 3 {
		cut := d.load(path, told)
		if out, err := d.mount(); err != nil {
			t.Fatalf("mounting again: %v %s", err, out)
		}
		d.look(path, told, cut)
	}
}

// load lets a process write, cuts the power, and notes what was committed before.
func (d *disk) load(path string, told map[string]time.Time) (cut time.Time) {
	t := d.t
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^TestPowerCutUnderLoad$")
	cmd.Env = append(os.Environ(), diskVariable+"="+path)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	n, refused := 0, false
	var unable error
	for sc := bufio.NewScanner(out); sc.Scan(); {
		kind, rest, _ := strings.Cut(sc.Text(), " ")
		switch kind {
		case "id":
			id, at, _ := strings.Cut(rest, " ")
			micros, err := strconv.ParseInt(at, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			told[id] = time.UnixMicro(micros)
			if n++; n == 3000 {
				if unable = d.cut(); unable != nil {
					cmd.Process.Kill()
				}
				cut = time.Now()
			}
		case "refused":
			if refused = true; cut.IsZero() {
				t.Errorf("refused while the disk was there: %s", rest)
			}
			cmd.Process.Kill()
		case "told":
			t.Errorf("the keeper tells: %s", rest)
		}
	}
	cmd.Wait()
	if unable != nil {
		t.Skip(unable)
	}
	if !refused {
		t.Errorf("after the power cut nothing was refused: %d requests", n)
	}
	d.umount()
	return cut
}

// look opens what is left, and holds it against what was committed.
func (d *disk) look(path string, told map[string]time.Time, cut time.Time) {
	t := d.t
	t.Helper()
	l, err := audit.Open(audit.Options{Path: path})
	if err != nil {
		t.Fatalf("the next start: %v", err)
	}
	k := start(t, path, nil, func(m string) { t.Errorf("the keeper tells: %s", m) })
	if _, err := write(l); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	k.Close()
	public, err := proof.LoadPublic(filepath.Join(d.dir, "log.pub"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := proof.Verify(proof.VerifyOptions{Path: path, Key: public})
	if err != nil || r.Bad != nil || r.Signed != int64(r.Last) {
		t.Errorf("%+v, %v", r, err)
	}
	has := map[string]bool{}
	for x, err := range index.List(t.Context(), index.Query{Path: path, Key: public, Notice: func(string) {}}) {
		if err != nil {
			t.Fatal(err)
		}
		has[x.Decision.ID] = true
	}
	lost := 0
	for id, at := range told {
		if has[id] {
			continue
		}
		delete(told, id)
		lost++
		if early := cut.Sub(at); early > syncIn+10*time.Second { // what a busy disk adds
			t.Errorf("%s was committed %v before the power cut and is lost", id, early)
		}
	}
	t.Logf("%d of the last requests were not on disk yet", lost)
}

// writeOn writes until it is refused, and tells of each request when it is committed.
func writeOn(path string) {
	l, err := audit.Open(audit.Options{Path: path, MaxSize: 256 << 10, Sync: syncIn, Leaves: true})
	if err != nil {
		fmt.Println("told", err)
		os.Exit(1)
	}
	key, err := proof.OpenKey(filepath.Join(filepath.Dir(path), "log.key"))
	if err != nil {
		fmt.Println("told", err)
		os.Exit(1)
	}
	Start(Options{Path: path, Log: l, Key: key, Pack: true, CheckpointEvery: 20 * time.Millisecond, CheckpointLines: 100, Every: 10 * time.Millisecond,
		Notice: func(string) {}, Altered: func(m string) { fmt.Println("told", m) }})
	for {
		id, err := write(l)
		if err != nil {
			fmt.Println("refused", strings.ReplaceAll(err.Error(), "\n", " "))
			select {}
		}
		fmt.Println("id", id, time.Now().UnixMicro())
	}
}
