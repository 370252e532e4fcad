package executor

import "testing"

func TestTheOwnGroupIsFoundWhereverItIsMounted(t *testing.T) {
	const usual = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
	for _, c := range []struct{ name, mounts, membership, want string }{
		{"alone", usual, "0::/system.slice/openscope.service\n", "/sys/fs/cgroup/system.slice/openscope.service"},
		{"the root", usual, "0::/\n", "/sys/fs/cgroup"},
		{"beside version 1", "30 23 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n31 23 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
			"5:pids:/x\n0::/y\n", "/sys/fs/cgroup/unified/y"},
		{"a part of it, in a container", "31 23 0:28 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/docker/abc/inner\n", "/sys/fs/cgroup/inner"},
		{"a space in the path", `31 23 0:28 / /mnt/a\040b rw - cgroup2 cgroup2 rw` + "\n", "0::/x\n", "/mnt/a b/x"},
		{"another part only", "31 23 0:28 /other /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/mine\n", ""},
		{"not mounted", "30 23 0:27 / /proc rw - proc proc rw\n", "0::/x\n", ""},
		{"version 1 only", usual, "5:pids:/x\n", ""},
		{"nonsense", "\x00\n - cgroup2\n", "0::/x\n", ""},
	} {
		got, err := ownGroup([]byte(c.mounts), []byte(c.membership))
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
}

func TestTheProcessTreeIsReadWhateverProcessesAreCalled(t *testing.T) {
	for line, want := range map[string]process{
		"12 (sh) S 3 4 5":             {12, 3, 4},
		"12 (a b) R 3 4 5":            {12, 3, 4},
		"12 (x) Z 1 1) S 3 4 5":       {12, 3, 4},
		"12 (evil\n) S 99) S 3 4 5\n": {12, 3, 4},
	} {
		if got, ok := parseStat(12, []byte(line)); !ok || got != want {
			t.Errorf("%q: %+v, %v", line, got, ok)
		}
	}
	for _, line := range []string{"", "12 (sh", "12 (sh) S", "12 (sh) S x y"} {
		if got, ok := parseStat(12, []byte(line)); ok {
			t.Errorf("%q: %+v", line, got)
		}
	}
}
