package loopback

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// ofThisUser reports whether the client's end of a loopback connection belongs to
// the user of this process, or to root. The kernel's tables of sockets say so
// (proc_pid_net(5)); where they cannot be read the answer is no.
func ofThisUser(client, server *net.TCPAddr) bool {
	local, remote := hexAddr(client), hexAddr(server)
	for _, table := range [...]string{"/proc/net/tcp", "/proc/net/tcp6"} { // a client may hold an IPv6 socket with a mapped address
		b, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range bytes.Lines(b) {
			f := strings.Fields(string(line))
			if len(f) < 8 || !strings.HasSuffix(f[1], local) || !strings.HasSuffix(f[2], remote) {
				continue
			}
			uid, err := strconv.Atoi(f[7])
			return err == nil && (uid == os.Getuid() || uid == 0)
		}
	}
	return false
}

// hexAddr is an IPv4 address as the tables end it: the four bytes as one number of
// this machine's order, and the port.
func hexAddr(a *net.TCPAddr) string {
	return fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(a.IP.To4()), a.Port)
}
