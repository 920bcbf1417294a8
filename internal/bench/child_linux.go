package bench

import "syscall"

// endWithParent has the kernel end the process when we die, however we do.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
