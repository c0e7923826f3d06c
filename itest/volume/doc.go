// Package volume tests and measures replicated volumes on a real metadata server and real chunk servers.
package volume
