package bolt

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
)

// A file never shrinks by itself: what is deleted leaves free pages behind. It is
// written anew when it is opened with compactFrom bytes or more and compactShare or more
// of its pages are free.
const (
	compactFrom  = 8 << 20
	compactShare = 0.5
	compactTx    = 4 << 20 // bytes that one transaction of it writes
)

// beside is added to the name of the file that is being written; one that a crash left
// is written over.
const beside = ".compact"

// compact writes the file anew, without what is free, if that is worth it. Until the
// new one is whole and synced the old one stands, and then takes its place at once: a
// crash leaves one or the other. Where it cannot be done (the disk is full, say) the
// old one serves as well.
func (s *Store) compact(path string, wait time.Duration) error {
	info, err := os.Stat(path)
	pages := s.db.Stats()
	free := int64(pages.FreePageN+pages.PendingPageN) * int64(s.db.Info().PageSize)
	var used int64 // without the end, which the file has ahead of its pages
	if err == nil {
		err = s.db.View(func(tx *bbolt.Tx) error { used = tx.Size(); return nil })
	}
	if err != nil || info.Size() < compactFrom || float64(free) < compactShare*float64(used) {
		return err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return err
	}
	if err := s.rewrite(path + beside); err != nil {
		os.Remove(path + beside)
		return nil
	}
	if err := likewise(info, path+beside); err != nil {
		os.Remove(path + beside)
		return nil
	}
	if err := os.Rename(path+beside, path); err != nil {
		os.Remove(path + beside)
		return nil
	}
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		dir.Sync() // a crash before it is done finds the old file
		dir.Close()
	}
	if err := s.db.Close(); err != nil {
		return err
	}
	return s.acquire(path, wait)
}

// rewrite copies what is alive into a new file, and reads it back.
func (s *Store) rewrite(path string) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	to, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return err
	}
	defer to.Close()
	if err := bbolt.Compact(to, s.db, compactTx); err != nil {
		return err
	}
	was, is, err := contents{}, contents{}, error(nil)
	if err := s.db.View(was.count); err != nil {
		return err
	}
	if err := to.View(is.count); err != nil {
		return err
	}
	if was != is {
		return fmt.Errorf("%+v became %+v", was, is)
	}
	if err = to.Sync(); err == nil {
		err = to.Close()
	}
	return err
}

// likewise gives the new file the old one's owner and group: whoever writes it anew, root
// for a verb, may not be who opens it next.
func likewise(was os.FileInfo, path string) error {
	is, err := os.Stat(path)
	if err != nil {
		return err
	}
	from, ok := was.Sys().(*syscall.Stat_t)
	to, also := is.Sys().(*syscall.Stat_t)
	if !ok || !also || from.Uid == to.Uid && from.Gid == to.Gid {
		return nil
	}
	return os.Chown(path, int(from.Uid), int(from.Gid))
}

// contents tells one file's entries from another's.
type contents struct {
	keys  int
	bytes int64
	last  uint64
}

func (c *contents) count(tx *bbolt.Tx) error {
	b := tx.Bucket(bucket)
	c.last = b.Sequence()
	return b.ForEach(func(k, v []byte) error {
		c.keys++
		c.bytes += int64(len(k) + len(v))
		return nil
	})
}
