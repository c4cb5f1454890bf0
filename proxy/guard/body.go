package guard

// body follows the framing of one request body, RFC 9112 sections 6 and 7.1,
// without touching its bytes. The zero body is closed.
type body struct {
	state bodyState
	left  int64 // bytes of the body or chunk still to come
	digit int   // digits seen of the chunk size
	line  int   // bytes seen of a chunk extension or of the trailers
}

type bodyState uint8

const (
	closed      bodyState = iota
	counted               // left bytes follow
	chunkSize             // hexadecimal digits
	chunkExt              // after ";", ignored by everybody, bounded
	chunkLF               // LF that ends the size line
	chunkData             // left bytes follow
	chunkCR               // CR behind the data
	chunkEndLF            // LF behind that
	trailerLine           // first byte of a trailer line, or the CR of the last
	trailerName           // a field name
	trailerText           // its value
	trailerLF             // LF that ends a trailer line
	lastLF                // LF that ends the body
)

// maxLine bounds a chunk extension, and all trailers together, in bytes.
const maxLine = 4 << 10

func (b *body) open() bool { return b.state != closed }

// want says how many of n bytes may be read without reading past the body.
func (b *body) want(n int) int {
	if b.state == counted && b.left < int64(n) {
		return int(b.left)
	}
	return n
}

// follow takes in p and returns how many of its bytes belong to the body. It
// returns false as soon as a byte breaks the framing.
func (b *body) follow(p []byte) (int, bool) {
	for i := 0; i < len(p); {
		switch b.state {
		case closed:
			return i, true
		case counted, chunkData:
			n := min(b.left, int64(len(p)-i))
			b.left -= n
			i += int(n)
			if b.left == 0 {
				b.state = b.afterData()
			}
		default:
			if !b.step(p[i]) {
				return i, false
			}
			i++
		}
	}
	return len(p), true
}

func (b *body) afterData() bodyState {
	if b.state == counted {
		return closed
	}
	return chunkCR
}

// step takes in one byte of chunk framing or of the trailers.
func (b *body) step(c byte) bool {
	switch b.state {
	case chunkSize:
		return b.size(c)
	case chunkExt:
		if c == '\r' {
			b.state = chunkLF
			return true
		}
		b.line++
		return b.line <= maxLine && fieldByte(c)
	case chunkLF:
		if b.left == 0 {
			return b.expect(c, '\n', trailerLine)
		}
		return b.expect(c, '\n', chunkData)
	case chunkCR:
		return b.expect(c, '\r', chunkEndLF)
	case chunkEndLF:
		b.digit, b.line = 0, 0
		return b.expect(c, '\n', chunkSize)
	case lastLF:
		return b.expect(c, '\n', closed)
	default:
		return b.trailer(c)
	}
}

// size takes in the chunk size: 1 to 15 hexadecimal digits, then CR or an extension.
func (b *body) size(c byte) bool {
	switch {
	case '0' <= c && c <= '9':
		c -= '0'
	case 'a' <= c && c <= 'f':
		c -= 'a' - 10
	case 'A' <= c && c <= 'F':
		c -= 'A' - 10
	case b.digit > 0 && c == '\r':
		b.state = chunkLF
		return true
	case b.digit > 0 && c == ';':
		b.state = chunkExt
		return true
	default:
		return false
	}
	b.digit++
	b.left = b.left<<4 | int64(c)
	return b.digit <= 15
}

func (b *body) trailer(c byte) bool {
	b.line++
	if b.line > maxLine {
		return false
	}
	switch b.state {
	case trailerLine:
		if c == '\r' {
			b.state = lastLF
			return true
		}
		b.state = trailerName
		return token(c)
	case trailerName:
		if c == ':' {
			b.state = trailerText
			return true
		}
		return token(c)
	case trailerText:
		if c == '\r' {
			b.state = trailerLF
			return true
		}
		return fieldByte(c)
	default:
		return b.expect(c, '\n', trailerLine)
	}
}

func (b *body) expect(c, want byte, next bodyState) bool {
	b.state = next
	return c == want
}
