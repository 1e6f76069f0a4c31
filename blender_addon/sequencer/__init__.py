"""Takes: folders of frames on disk, and the strips that show them."""

from . import take_list

register, unregister = take_list.register, take_list.unregister
