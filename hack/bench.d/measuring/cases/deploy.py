"""A stored image becomes a deployment."""

import glob
import os

from .. import checks
from ..contenders import Contender, Ours
from ..figures import Result, at_most, memory
from ..shell import Failure, run

STATEROOT = "debian"


class Deploying(Contender):
    """A sysroot that holds an image and deploys nothing yet."""

    def seeder(self):
        return OursDeploys(self.session)

    def seed(self, place, tag):
        sysroot = f"{place}/sysroot"
        os.makedirs(sysroot)
        run("ostree", "admin", "init-fs", "--modern", sysroot)
        run("ostree", "admin", "os-init", f"--sysroot={sysroot}", STATEROOT)
        run("ostree", f"--repo={sysroot}/ostree/repo", "config", "set", "sysroot.bootloader", "none")
        run(self.session.tools.program, "--sysroot", sysroot, "image", "pull", "--quiet", Ours(self.session).reference(tag))

    def commit(self, place, tag):
        """Returns the commit of the image."""
        repo = f"{place}/sysroot/ostree/repo"
        return run("ostree", f"--repo={repo}", "rev-parse", checks.image_ref(repo, tag))

    def tree(self, place):
        """Returns where the files are."""
        found = glob.glob(f"{place}/sysroot/ostree/deploy/{STATEROOT}/deploy/*.0")
        if len(found) != 1:
            raise Failure(f"{self.name} made {len(found)} deployments")
        return found[0]

    def check(self, place, tag, first):
        repo = f"{place}/sysroot/ostree/repo"
        wanted = checks.root_of(repo, self.commit(place, tag), "/usr")
        tree = self.tree(place)
        run("ostree", f"--repo={repo}", "config", "set", "core.fsync", "false")
        if first:
            found = run("ostree", f"--repo={repo}", "commit", "--orphan", f"--tree=dir={tree}/usr")
            checks.require(self.name, checks.root_of(repo, found), wanted)


class OursDeploys(Deploying):
    name = "apt-ostree rebase --cache-only"

    def commands(self, place, tag):
        reference = Ours(self.session).reference(tag)
        return [[self.session.tools.program, "--sysroot", f"{place}/sysroot", "rebase", "--quiet", "--cache-only", reference]]


class OstreeDeploys(Deploying):
    name = "ostree admin deploy"

    def commands(self, place, tag):
        return [["ostree", "admin", "deploy", f"--sysroot={place}/sysroot", f"--os={STATEROOT}", self.commit(place, tag)]]


class OstreeChecksOut(Deploying):
    """The files alone: no boot entry, no /etc, nothing durable."""

    name = "ostree checkout -H"

    def commands(self, place, tag):
        repo = f"{place}/sysroot/ostree/repo"
        return [["ostree", f"--repo={repo}", "checkout", "-H", self.commit(place, tag), f"{place}/tree"]]

    def tree(self, place):
        return f"{place}/tree"


def case(title, tag):
    """Returns a case: no slower than `ostree admin deploy`."""
    def measured(session):
        session.offer([tag])
        contenders = [OursDeploys(session), OstreeDeploys(session), OstreeChecksOut(session)]
        compared = session.upgrade(title, contenders, tag, tag)
        return Result([compared], [
            at_most(compared, OursDeploys.name, OstreeDeploys.name, 1),
            memory(compared, "apt-ostree"),
        ])
    measured.__doc__ = title
    return measured


CASES = {
    "deploy": case("Deployment of a stored image, example image", "base"),
    "deploy-big": case("Deployment of a stored image, 100,000 files", "files-100k"),
}
