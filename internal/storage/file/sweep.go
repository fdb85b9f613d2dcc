package file

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// The most files, and folders, that one change looks at. A change leaves at most one file behind, so expired files stay
// a fraction of all, however many there are.
const (
	sweepLooks   = 8
	sweepFolders = 8
)

// sweeper walks through all folders, a few files after each change, and deletes the files that have ended.
type sweeper struct {
	driver *driver

	mu     sync.Mutex
	next   int      // the folder after this one
	folder *os.File // nil between two
	closed bool
}

// step looks at the next few files. After an error a file is tried again in the next round.
func (s *sweeper) step(now time.Time) {
	if !s.mu.TryLock() { // somebody is at it
		return
	}
	defer s.mu.Unlock()
	for looks, opened := 0, 0; !s.closed && looks < sweepLooks && opened < sweepFolders; {
		if s.folder == nil {
			s.folder, _ = os.Open(s.driver.folder(s.next)) // nil if nobody has made it yet
			s.next = (s.next + 1) % folders
			opened++
			continue
		}
		names, err := s.folder.Readdirnames(sweepLooks - looks)
		for _, name := range names {
			s.look(filepath.Join(s.folder.Name(), name), now)
		}
		looks += len(names)
		if err != nil {
			_ = s.folder.Close()
			s.folder = nil
		}
	}
}

// look deletes a file that has ended, or that was being written when its process was killed.
func (s *sweeper) look(path string, now time.Time) {
	of, isDraft := strings.CutSuffix(path, draft)
	if !isCart(filepath.Base(of)) {
		return
	}
	if info, err := os.Stat(path); err != nil || !isDraft && now.Before(info.ModTime()) {
		return
	}
	unlock, err := s.driver.locks.try(placeAt(of))
	if err != nil { // somebody else is writing the file
		return
	}
	defer unlock()
	if isDraft {
		_ = os.Remove(path)
		return
	}
	// The file's time may be wrong, as after a copy, so the content decides.
	_, state, err := stateAt(path)
	if err != nil {
		return
	}
	if ends := state.Ends(); ends.IsZero() || now.Before(ends) {
		_ = os.Chtimes(path, time.Time{}, hint(ends))
		return
	}
	_ = os.Remove(path)
}

func (s *sweeper) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.folder != nil {
		_ = s.folder.Close()
	}
}
