"""The domain: everything that refold needs to know of this project, as one value."""

from refold import Domain

from package_name.events import TicketClosed, TicketOpened, add_priority
from package_name.read_models import CUSTOMERS_WAITING, TICKETS_BY_CUSTOMER
from package_name.ticket import TICKET

DOMAIN = Domain(
    name="package_name",
    events=(TicketOpened, TicketClosed),
    upcasters=(add_priority,),
    read_models=(TICKETS_BY_CUSTOMER,),
    views=(CUSTOMERS_WAITING,),
    deciders=(TICKET,),
)
