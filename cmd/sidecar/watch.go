package main

import (
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long files must be left alone before they are read: editors and the kubelet change several names in a
// row.
const settle = 50 * time.Millisecond

// dataLink is the link in a projected volume that the kubelet replaces by a rename. All files change with it, and no
// event names them.
const dataLink = "..data"

// watcher tells when one of a set of files may have changed. It watches their folders, since files are often replaced
// instead of written to. It misses changes on a network file system or behind a link into another folder. Its user
// finds these by polling.
type watcher struct {
	changed chan struct{} // holds one value after a change
	fs      *fsnotify.Watcher
	log     *slog.Logger

	mu      sync.Mutex
	names   map[string]bool // base names that matter
	folders map[string]bool // whether the folder is watched; false where that failed
}

// newWatcher starts a watcher that follows nothing yet. If the system allows no watch, it logs that and never reports a
// change.
func newWatcher(log *slog.Logger) *watcher {
	w := &watcher{changed: make(chan struct{}, 1), log: log, folders: map[string]bool{}}
	var err error
	if w.fs, err = fsnotify.NewWatcher(); err != nil {
		log.Warn("files cannot be watched, changes are found by looking now and then", "error", err)
		return w
	}
	go w.run()
	return w
}

// follow replaces the set of files.
func (w *watcher) follow(files []string) {
	if w.fs == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names = map[string]bool{dataLink: true}
	folders := map[string]bool{}
	for _, f := range files {
		w.names[filepath.Base(f)] = true
		folders[filepath.Dir(f)] = true
	}
	for f := range w.folders {
		if !folders[f] {
			_ = w.fs.Remove(f) // it may be gone itself
			delete(w.folders, f)
		}
	}
	for f := range folders {
		err := w.fs.Add(f) // adding it again finds a folder that was replaced
		if watched, known := w.folders[f]; err != nil && (watched || !known) {
			w.log.Warn("folder cannot be watched, changes in it are found by looking now and then", "folder", f, "error", err)
		}
		w.folders[f] = err == nil
	}
}

func (w *watcher) matters(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.names[filepath.Base(name)]
}

func (w *watcher) run() {
	quiet := time.NewTimer(0)
	quiet.Stop()
	for {
		select {
		case e, ok := <-w.fs.Events:
			if !ok {
				return
			}
			if w.matters(e.Name) && !e.Has(fsnotify.Chmod) {
				quiet.Reset(settle)
			}
		case _, ok := <-w.fs.Errors: // an overflow lost events: look
			if !ok {
				return
			}
			quiet.Reset(settle)
		case <-quiet.C:
			select {
			case w.changed <- struct{}{}:
			default:
			}
		}
	}
}

// close ends the watch.
func (w *watcher) close() {
	if w.fs != nil {
		_ = w.fs.Close()
	}
}
