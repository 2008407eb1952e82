package parts

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
)

// RemoveCgroup removes a control group and those below it, the innermost first. It keeps a group that is in use,
// and names it in the error.
func RemoveCgroup(group string) error {
	var all []string
	_ = filepath.WalkDir(group, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			all = append(all, path)
		}
		return nil
	})
	var failed error
	for _, each := range slices.Backward(all) {
		failed = errors.Join(failed, os.Remove(each))
	}
	return failed
}
