package disk

// OS is the operating system's file system.
type OS struct{}
