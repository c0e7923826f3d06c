// Package size reads and writes amounts of bytes as the commands show them: binary multiples with one letter.
package size

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// units in rising order; each is 1024 times the one before it.
const units = "KMGTPE"

// Parse reads a number with an optional unit: 512, 4K, 512M, 10G, 1.5T. "10GB" and "10GiB" mean 10G.
func Parse(text string) (uint64, error) {
	number, shift := split(text)
	if whole, err := strconv.ParseUint(number, 10, 64); err == nil {
		if bits.Len64(whole)+shift > 63 {
			return 0, fmt.Errorf("size %q is too large", text)
		}
		return whole << shift, nil
	}
	fraction, err := strconv.ParseFloat(number, 64)
	if err != nil || fraction < 0 || math.IsNaN(fraction) || shift == 0 || strings.ContainsAny(number, "eExX_+-") {
		return 0, fmt.Errorf("%q is not a size (examples: 512M, 10G, 1T)", text)
	}
	if fraction = fraction * float64(uint64(1)<<shift); fraction >= 1<<62 {
		return 0, fmt.Errorf("size %q is too large", text)
	}
	return uint64(fraction), nil
}

// split takes the unit off and returns it as a power of two.
func split(text string) (number string, shift int) {
	number = strings.ToUpper(strings.TrimSpace(text))
	number = strings.TrimSuffix(strings.TrimSuffix(number, "B"), "I")
	if number == "" {
		return number, 0
	}
	if at := strings.IndexByte(units, number[len(number)-1]); at >= 0 {
		return number[:len(number)-1], 10 * (at + 1)
	}
	return number, 0
}

// Format writes an amount in three characters or so: 512B, 4KB, 1.6TB, 105GB.
func Format(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%dB", n)
	}
	value, unit := float64(n), -1
	for value >= 1023.5 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	text := fmt.Sprintf("%.0f", value)
	if value < 9.95 {
		text = strings.TrimSuffix(fmt.Sprintf("%.1f", value), ".0")
	}
	return text + units[unit:unit+1] + "B"
}
