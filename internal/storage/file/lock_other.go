//go:build !linux

package file

import (
	"errors"
	"os"
)

var errSystem = errors.New("this system has no locks that belong to an open file: use SQLite")

func lockByte(*os.File, int64) (bool, error) { return false, errSystem }
func unlockByte(*os.File, int64) error       { return errSystem }
