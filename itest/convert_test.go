package itest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// With real processes: a volume becomes an image file and a volume again; what fails leaves nothing.
func TestVolumesAreConvertedToImagesAndBack(t *testing.T) {
	need(t, "qemu-img")
	l := newExportLab(t)
	l.change(200)
	for _, file := range []string{"v.qcow2", "v.hds", "v.img"} {
		command(t, l.c, "convert", "volume:v", l.file(file))
		name := strings.ReplaceAll(file, ".", "-")
		command(t, l.c, "convert", l.file(file), "volume:"+name)
		l.holds(name)
	}
	if all := shotsOf(t, l.c, "v"); len(all) != 0 {
		t.Errorf("snapshots are left: %v", all)
	}
	l.refused(nil, 5, "convert", l.file("v.img"), "volume:v-img")
	l.refused(nil, 5, "convert", "volume:v", l.file("v.img"))
	pass(t, os.WriteFile(l.file("none.qcow2"), []byte("nothing"), 0o600))
	l.refused(nil, 1, "convert", l.file("none.qcow2"), "volume:broken")
	if out, err := exec.CommandContext(newContext(t), "qemu-img", "create", "-f", "qcow2", "-u", "-F", "raw", "-b", "/nowhere", l.file("half.qcow2"), "16M").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l.refused(nil, 1, "convert", l.file("half.qcow2"), "volume:broken")
	if out := command(t, l.c, "ls"); strings.Contains(out, "broken") {
		t.Error(out)
	}
}
